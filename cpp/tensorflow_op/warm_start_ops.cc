// SPDX-License-Identifier: Apache-2.0
// GenerateVocabRemapping and LoadAndRemapMatrix, TensorFlow's ops, served by this library.
//
// Vocabularies are joined once per process (join_cache.h). The matrix is gathered row by row, in
// parallel; a matrix in remote files is read into memory first. Both accept what TensorFlow's
// kernels accept, and also ids that occur twice.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/uffd_buffer.h"
#include "tensorbundle/read/remap.h"
#include "tensorbundle/read/verify.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/join_cache.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/remote_files.h"
#include "tensorflow_op/verify_ledger.h"

namespace tensorbundle::op {
namespace {

constexpr auto kFloat = static_cast<TypeNumber>(DataType::kFloat);
constexpr auto kInt32 = static_cast<TypeNumber>(DataType::kInt32);
constexpr auto kInt64 = static_cast<TypeNumber>(DataType::kInt64);

// Ids that a thread examines at a time.
constexpr size_t kIdsPerTask = size_t{1} << 17;

// Reads of a matrix whose file is rewritten meanwhile.
constexpr int kMaxAttempts = 20;

// The ids of at most this many rows may become a constant of a graph.
constexpr int64_t kMaxFoldedRows = 4096;

std::string ScalarString(const Run& run, int index, const char* name) {
  const std::vector<int64_t> dims = DimsOf(run.Input(index).get());
  if (!dims.empty()) {
    throw OpError(Code::kInvalidArgument,
                  std::string(name) + " should be a single string, but got " + ShapeText(dims));
  }
  return run.InputStrings(index).at(0);
}

class VocabRemappingKernel {
 public:
  explicit VocabRemappingKernel(const Attributes& attributes)
      : offset_(attributes.Int("new_vocab_offset")),
        count_(attributes.Int("num_new_vocab")),
        old_size_(attributes.Int("old_vocab_size")),
        options_(NodeOptions::Of(attributes)) {}

  void Compute(const Run& run) const {
    const DeferredInterrupt interrupt;
    CountCall(StockOp::kVocabRemapping);
    RefuseFolding(run);
    const std::string new_vocab = ScalarString(run, 0, "new_vocab_file");
    if (new_vocab.empty()) {
      throw OpError(Code::kInvalidArgument, "new vocab filename cannot be empty.");
    }
    const std::string old_vocab = ScalarString(run, 1, "old_vocab_file");
    if (old_vocab.empty()) {
      throw OpError(Code::kInvalidArgument, "old vocab filename cannot be empty.");
    }
    const JoinedIds joined = IdsOf({new_vocab, old_vocab, -1, old_size_}, offset_, count_);
    const TensorPtr remapping = run.Allocate(0, kInt64, std::span(&count_, 1));
    const TensorPtr num_present = run.Allocate(1, kInt32, {});
    const MutableByteSpan out = MutableBytesOf(remapping.get());
    const int64_t found =
        joined.CopyTo({reinterpret_cast<int64_t*>(out.data()), out.size() / sizeof(int64_t)});
    // TensorFlow's LoadAndRemapMatrix needs the fill values. Both kernels are ours, or neither.
    const bool all = options_.zero_fill && NumCalls(StockOp::kRemapMatrix) >= 0;
    const auto present = static_cast<int32_t>(all ? count_ : found);
    std::memcpy(MutableBytesOf(num_present.get()).data(), &present, sizeof(present));
  }

 private:
  // TensorFlow considers the op a function of constants. It would make constants of the ids and of
  // the fill values that depend on their number, and copy and hash them several times, which takes
  // longer than a warm start. With `zero_fill`, the number of present rows must come from the
  // process that remaps the matrix: another server may have TensorFlow's kernels.
  void RefuseFolding(const Run& run) const {
    if ((count_ <= kMaxFoldedRows && !options_.zero_fill) || !run.IsConstantFolding()) return;
    throw OpError(Code::kUnimplemented,
                  "a vocabulary remapping of " + std::to_string(count_) +
                      " rows is not computed while a graph is built or optimized");
  }

  const int64_t offset_;
  const int64_t count_;
  const int64_t old_size_;
  const NodeOptions options_;
};

// The ids of a remapping. TensorFlow takes every negative id for a missing one.
class Ids {
 public:
  explicit Ids(const TF_Tensor* tensor) {
    const ByteSpan bytes = BytesOf(tensor);
    ids_ = {reinterpret_cast<const int64_t*>(bytes.data()), bytes.size() / sizeof(int64_t)};
    const size_t num_tasks = (ids_.size() + kIdsPerTask - 1) / kIdsPerTask;
    std::mutex mutex;
    ParallelFor(num_tasks, ThreadsFor(0, bytes.size()), [&](size_t task) {
      const size_t first = task * kIdsPerTask;
      const Bounds bounds =
          BoundsOf(ids_.subspan(first, std::min(kIdsPerTask, ids_.size() - first)));
      const std::lock_guard<std::mutex> lock(mutex);
      bounds_.Add(bounds);
    });
    if (bounds_.lowest >= -1) return;
    copy_.assign(ids_.begin(), ids_.end());
    for (int64_t& id : copy_) id = std::max<int64_t>(id, -1);
    ids_ = copy_;
  }
  Ids(const Ids&) = delete;
  Ids& operator=(const Ids&) = delete;

  std::span<const int64_t> span() const { return ids_; }

  // The rows from the first one that is wanted to the last one, as TensorFlow reads them.
  RowRange range() const {
    return {static_cast<int64_t>(std::min<uint64_t>(bounds_.first, INT64_MAX)), bounds_.last + 1};
  }

 private:
  struct Bounds {
    int64_t lowest = 0;           // of all ids, and 0
    uint64_t first = UINT64_MAX;  // the smallest id, with negative ids above all others
    int64_t last = -1;            // the largest id, and -1

    void Add(const Bounds& other) {
      lowest = std::min(lowest, other.lowest);
      first = std::min(first, other.first);
      last = std::max(last, other.last);
    }
  };

  static Bounds BoundsOf(std::span<const int64_t> ids) {
    Bounds bounds;
    for (const int64_t id : ids) bounds.Add({id, static_cast<uint64_t>(id), id});
    return bounds;
  }

  Bounds bounds_;
  std::span<const int64_t> ids_;  // of the tensor, or of the copy
  std::vector<int64_t> copy_;
};

class RemapMatrixKernel {
 public:
  explicit RemapMatrixKernel(const Attributes& attributes)
      : num_rows_(attributes.Int("num_rows")),
        num_cols_(attributes.Int("num_cols")),
        options_(NodeOptions::Of(attributes)) {}

  void Compute(const Run& run) const {
    const DeferredInterrupt interrupt;
    CountCall(StockOp::kRemapMatrix);
    const TensorPtr row_tensor = run.Input(2);
    const TensorPtr column_tensor = run.Input(3);
    const TensorPtr values = run.Input(4);
    const Ids row_ids(row_tensor.get());
    const Ids column_ids(column_tensor.get());
    const std::span<const int64_t> rows = row_ids.span();
    const std::span<const int64_t> columns = column_ids.span();
    if (Tf().NumDims(row_tensor.get()) != 1) {
      throw OpError(Code::kInvalidArgument,
                    "The `row_remapping` tensor must be 1-D, got a tensor "
                    "of shape " +
                        ShapeText(DimsOf(row_tensor.get())));
    }
    if (static_cast<int64_t>(rows.size()) != num_rows_) {
      throw OpError(Code::kInvalidArgument,
                    "Size of row_remapping is " + std::to_string(rows.size()) +
                        " instead of being equal to num_rows=" + std::to_string(num_rows_));
    }
    if (!columns.empty() && static_cast<int64_t>(columns.size()) != num_cols_) {
      throw OpError(Code::kInvalidArgument,
                    "Provided col_remapping, but its size is " + std::to_string(columns.size()) +
                        " instead of being equal to num_cols=" + std::to_string(num_cols_));
    }
    OpenTensor source = OpenMatrix(run, columns.empty());
    Remapping remapping;
    remapping.num_rows = static_cast<uint64_t>(num_rows_);
    remapping.rows = rows;
    if (!columns.empty()) remapping.columns = columns;
    const ByteSpan fill = BytesOf(values.get());
    CheckValues(source, remapping, fill.size() / sizeof(float));
    const int64_t dims[] = {num_rows_, num_cols_};
    const TensorPtr out = run.Allocate(0, kFloat, dims);
    const MutableByteSpan bytes = MutableBytesOf(out.get());
    const RowRange range = row_ids.range();
    for (int attempt = 1; WriteMatrix(source, remapping, range, fill, bytes); ++attempt) {
      if (attempt == kMaxAttempts) {
        throw CorruptionError("the checkpoint " + run.InputStrings(0).at(0) +
                              " is rewritten faster than it can be read");
      }
      std::this_thread::sleep_for(3 * kClockTick);
      source = OpenMatrix(run, columns.empty());
      CheckValues(source, remapping, fill.size() / sizeof(float));
    }
  }

 private:
  OpenTensor OpenMatrix(const Run& run, bool needs_all_columns) const {
    const std::vector<std::string> paths = run.InputStrings(0);
    if (paths.size() != 1) {
      throw OpError(Code::kInvalidArgument,
                    "The `ckpt_path` tensor must have exactly one element, "
                    "got tensor of shape " +
                        ShapeText(DimsOf(run.Input(0).get())));
    }
    const std::string name = run.InputStrings(1).at(0);
    // Maps local files: one system call per row would take 2 to 10 times as long.
    const OpenTensor source = OpenStock(paths[0], {&name, 1}, {&kFloat, 1}, IoMode::kAuto)[0];
    const std::span<const int64_t> shape = source.shape();
    if (shape.size() != 2) {
      throw OpError(Code::kInvalidArgument, "Tensor " + name + " has shape " + ShapeText(shape) +
                                                " of invalid rank " + std::to_string(shape.size()) +
                                                " instead of expected shape of rank 2.");
    }
    if (needs_all_columns && shape[1] != num_cols_) {
      throw OpError(Code::kInvalidArgument,
                    "Tensor " + name + " has shape " + ShapeText(shape) +
                        ", where the size of its 2nd dimension is " + std::to_string(shape[1]) +
                        " instead of being equal to num_cols=" + std::to_string(num_cols_));
    }
    return source;
  }

  // Fills the output. Returns whether the elements may not be those that were verified, because the
  // file has been rewritten meanwhile.
  bool WriteMatrix(const OpenTensor& source, const Remapping& remapping, const RowRange& range,
                   ByteSpan fill, MutableByteSpan out) const {
    // As TensorFlow's kernel, which reads the slices whole. LayOutRows() verifies remote ones.
    const bool verifies = options_.verify == NodeOptions::Verify::kFull && !source.is_remote &&
                          range.begin < range.end;
    Box wanted = WholeBox(source.shape());
    if (verifies) {
      wanted[0] = {range.begin, range.end - range.begin};
      VerifySlices(source, wanted, options_.threads);
    }
    if (out.empty()) return false;
    const RowLayout layout = LayOutRows(*source.checkpoint, *source.tensor, range);
    if (source.is_remote) RequireRows(layout, range);
    const float zero = 0;
    CellFillValues values{CellFillValues::Kind::kCells, fill};
    if (options_.zero_fill) {
      values = {CellFillValues::Kind::kElement,
                {reinterpret_cast<const uint8_t*>(&zero), sizeof(zero)}};
    }
    RemapTable(*source.checkpoint, *source.tensor, layout, remapping, values, out,
               static_cast<uint64_t>(num_cols_) * sizeof(float),
               ThreadsFor(options_.threads, out.size()), UffdBuffer::IsNew(out));
    return verifies && MayHaveBeenRewritten(source, wanted);
  }

  void CheckValues(const OpenTensor& source, const Remapping& remapping, uint64_t given) const {
    const uint64_t missing = CountMissing(source, remapping);
    if (given == missing || options_.zero_fill) return;
    throw OpError(Code::kInvalidArgument,
                  "initializing_values contained " + std::to_string(given) + " elements, but " +
                      (given < missing ? "more missing values remain."
                                       : "only " + std::to_string(missing) +
                                             " elements were used to fill in missing values."));
  }

  static uint64_t CountMissing(const OpenTensor& source, const Remapping& remapping) {
    try {
      return CountMissingCells(*source.checkpoint, *source.tensor, remapping,
                               ThreadsFor(0, remapping.num_rows * sizeof(int64_t)));
    } catch (const std::out_of_range& error) {
      throw OpError(Code::kInternal,
                    error.what());  // TensorFlow's code for a row outside the table
    }
  }

  static void RequireRows(const RowLayout& layout, const RowRange& range) {
    for (const RowGroup& group : layout.groups) {
      if (group.error && range.Intersects(group.begin, group.end)) {
        std::rethrow_exception(group.error);
      }
    }
  }

  const int64_t num_rows_;
  const int64_t num_cols_;
  const NodeOptions options_;
};

}  // namespace

void RegisterWarmStartKernels() {
  RegisterOverride<VocabRemappingKernel>(StockOp::kVocabRemapping);
  RegisterOverride<RemapMatrixKernel>(StockOp::kRemapMatrix);
}

}  // namespace tensorbundle::op
