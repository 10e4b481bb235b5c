// SPDX-License-Identifier: Apache-2.0
// TensorbundleRemapV1: a box of a table with its rows or columns in the order of a new vocabulary.
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/io/uffd_buffer.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/remap.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/join_cache.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {
namespace {

// Where the values of missing cells come from.
enum class FillLayout {
  kZero,   // zeros; no inputs
  kCells,  // input 0: a value per missing cell, row-major; input 1: the out-of-vocabulary block
  kFull    // input 0: values in the output's shape; each missing cell takes the one at its position
};

// Requires: both are >= 0. Returns nullopt on overflow.
std::optional<int64_t> Sum(int64_t a, int64_t b) {
  const std::optional<uint64_t> sum =
      CheckedAdd(static_cast<uint64_t>(a), static_cast<uint64_t>(b));
  if (!sum || *sum > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(*sum);
}

class RemapKernel {
 public:
  explicit RemapKernel(const Attributes& attributes)
      : prefix_(attributes.Path("prefix")),
        name_(attributes.String("tensor")),
        type_(attributes.Type("dtype")),
        axis_(attributes.Int("axis")),
        request_(JoinRequestOf(attributes)),
        offset_(attributes.Int("offset")),
        num_rows_(attributes.Int("num_rows")),
        num_cols_(attributes.Int("num_cols")),
        num_oov_(attributes.Int("num_oov")),
        fill_layout_(FillLayoutOf(attributes.String("fill_layout"))),
        shape_(attributes.Ints("shape")),
        threads_(attributes.Int("threads")) {
    if (axis_ != 0 && axis_ != 1) Refuse("axis is " + std::to_string(axis_) + ", not 0 or 1");
    if (axis_ == 1 && num_cols_ < 0) Refuse("axis 1 needs num_cols");
    if (axis_ == 0 && num_cols_ >= 0) Refuse("num_cols is for axis 1, and axis is 0");
    if (!Sum(axis_ == 0 ? num_rows_ : num_cols_, num_oov_)) {
      Refuse("num_oov is " + std::to_string(num_oov_) + ", which is too many to count");
    }
    if (!CheckedVolume(shape_)) Refuse("no tensor can have the shape " + ShapeText(shape_));
  }

  void Compute(const Run& run) const {
    const OpenTensor source = Open(prefix_, name_, type_, IoMode::kAuto);
    CheckShape(source.shape());
    CheckInputs(run);
    const uint64_t item_size = ItemSize(*source.tensor);
    CheckBytes(item_size);
    const JoinedIds joined =
        axis_ == 0 ? IdsOf(request_, offset_, num_rows_) : IdsOf(request_, 0, num_cols_);
    const PageBuffer memory(joined.size() * sizeof(int64_t));
    const std::span<int64_t> ids(reinterpret_cast<int64_t*>(memory.data()), joined.size());
    joined.CopyTo(ids);
    const Remapping remapping = RemappingOf(ids);
    RowLayout layout;
    const bool is_empty = CheckedVolume(shape_) == 0;
    if (!is_empty) layout = LayOut(source, remapping);
    bool forwarded = false;
    // Before taking references to the inputs: TensorFlow forwards only a buffer with a single
    // reference.
    const TensorPtr out = fill_layout_ == FillLayout::kFull
                              ? run.ForwardOrAllocate(0, 0, shape_, &forwarded)
                              : run.Allocate(0, type_, shape_);
    const MutableByteSpan bytes = MutableBytesOf(out.get());
    std::vector<TensorPtr> inputs;
    std::vector<ByteSpan> fill_values;
    for (int i = 0; i < NumInputs(); ++i) {
      if (!forwarded) inputs.push_back(run.Input(i));
      fill_values.push_back(forwarded ? ByteSpan(bytes) : BytesOf(inputs.back().get()));
    }
    CheckSize(bytes.size(), item_size);
    if (!is_empty) WriteTable(source, layout, remapping, fill_values, bytes, item_size);
  }

 private:
  [[noreturn]] static void Refuse(const std::string& what) {
    throw OpError(Code::kInvalidArgument, what);
  }

  static FillLayout FillLayoutOf(const std::string& word) {
    if (word == "zero") return FillLayout::kZero;
    if (word == "cells") return FillLayout::kCells;
    return FillLayout::kFull;  // the op definition allows no other value
  }

  Remapping RemappingOf(std::span<const int64_t> ids) const {
    Remapping remapping;
    remapping.num_rows = static_cast<uint64_t>(num_rows_);
    if (axis_ == 0) {
      remapping.rows = ids;
    } else {
      remapping.first_row = static_cast<uint64_t>(offset_);
      remapping.columns = ids;
    }
    return remapping;
  }

  // Checks the rows before memory is allocated for them.
  RowLayout LayOut(const OpenTensor& source, const Remapping& remapping) const {
    const int threads = ThreadsFor(threads_, remapping.num_rows * sizeof(int64_t));
    RowLayout layout = LayOutRows(*source.checkpoint, *source.tensor);
    try {
      RequireRemappable(*source.checkpoint, *source.tensor, layout, remapping, threads);
    } catch (const std::out_of_range& error) {
      ThrowOutsideTable(source.shape(), axis_ == 0 ? *remapping.rows : *remapping.columns,
                        error.what());
    }
    return layout;
  }

  // Writes the remapped rows and columns of the table, then the out-of-vocabulary block.
  void WriteTable(const OpenTensor& source, const RowLayout& layout, const Remapping& remapping,
                  std::span<const ByteSpan> fill_values, MutableByteSpan out,
                  uint64_t item_size) const {
    const uint64_t row_size = out.size() / static_cast<uint64_t>(shape_[0]);
    const int threads = ThreadsFor(threads_, out.size());
    const MutableByteSpan table = out.first(static_cast<size_t>(num_rows_) * row_size);
    const uint8_t zero[16] = {};  // the size of the widest element type
    CellFillValues fill{CellFillValues::Kind::kElement, {zero, item_size}};
    if (fill_layout_ == FillLayout::kCells) fill = {CellFillValues::Kind::kCells, fill_values[0]};
    if (fill_layout_ == FillLayout::kFull) {
      fill = {CellFillValues::Kind::kPlaces, fill_values[0].first(table.size())};
    }
    RemapTable(*source.checkpoint, *source.tensor, layout, remapping, fill, table, row_size,
               threads, UffdBuffer::IsNew(table));
    if (num_oov_ == 0) return;
    if (axis_ == 0) {
      WriteOov(fill_values, out.data() + table.size(), 1, out.size() - table.size(), 0, out.data());
    } else {
      const uint64_t known_size =
          row_size / static_cast<uint64_t>(shape_[1]) * static_cast<uint64_t>(num_cols_);
      WriteOov(fill_values, out.data() + known_size, static_cast<uint64_t>(shape_[0]),
               row_size - known_size, row_size, out.data());
    }
  }

  // The most likely cause of an id outside the table: the old vocabulary has more tokens than the
  // table has rows.
  [[noreturn]] void ThrowOutsideTable(std::span<const int64_t> table, std::span<const int64_t> ids,
                                      const std::string& error) const {
    const int64_t size = table[static_cast<size_t>(axis_)];
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < size) continue;
      const int64_t entry = static_cast<int64_t>(i) + (axis_ == 0 ? offset_ : 0);
      const std::string entries = axis_ == 0 ? " rows" : " columns";
      Refuse(error + ": the token in line " + std::to_string(entry + 1) + " of the vocabulary " +
             request_.new_vocab + " is in line " + std::to_string(ids[i] + 1) +
             " of the old vocabulary " + request_.old_vocab + ", but the table has only " +
             std::to_string(size) + entries + ". If its first " + std::to_string(size) +
             " lines belong to the table, set old_vocab_size=" + std::to_string(size));
    }
    Refuse(error);
  }

  // Writes `count` spans of `size` bytes each, `stride` bytes apart.
  void WriteOov(std::span<const ByteSpan> fill_values, uint8_t* out, uint64_t count, uint64_t size,
                uint64_t stride, const uint8_t* begin) const {
    const uint8_t* in = nullptr;
    uint64_t in_stride = size;
    if (fill_layout_ == FillLayout::kCells) {
      const ByteSpan block = fill_values[1];
      if (block.size() != count * size) {
        throw OpError(Code::kInvalidArgument,
                      "the out-of-vocabulary fill has " + std::to_string(block.size()) +
                          " bytes, expected " + std::to_string(count * size));
      }
      in = block.data();
    } else if (fill_layout_ == FillLayout::kFull) {
      in = fill_values[0].data() + (out - begin);
      in_stride = stride;
    }
    if (in == out) return;  // the input was forwarded
    for (uint64_t i = 0; i < count; ++i) {
      if (in == nullptr) {
        std::memset(out + i * stride, 0, size);
      } else {
        std::memcpy(out + i * stride, in + i * in_stride, size);
      }
    }
  }

  int NumInputs() const {
    if (fill_layout_ == FillLayout::kZero) return 0;
    return fill_layout_ == FillLayout::kCells && num_oov_ > 0 ? 2 : 1;
  }

  void CheckInputs(const Run& run) const {
    if (run.num_inputs() != NumInputs()) {
      throw OpError(Code::kInvalidArgument, std::to_string(run.num_inputs()) +
                                                " fills were given, expected " +
                                                std::to_string(NumInputs()));
    }
    for (int i = 0; i < NumInputs(); ++i) {
      const TypeNumber type = Tf().TensorType(run.Input(i).get());
      if (type == type_) continue;
      throw OpError(Code::kInvalidArgument,
                    "a fill has type " + TypeText(type) + ", expected " + TypeText(type_));
    }
    if (fill_layout_ != FillLayout::kFull) return;
    const std::vector<int64_t> dims = DimsOf(run.Input(0).get());
    if (dims == shape_) return;
    throw OpError(Code::kInvalidArgument,
                  "the fill has shape " + ShapeText(dims) + ", expected " + ShapeText(shape_));
  }

  uint64_t ItemSize(const Tensor& tensor) const {
    const uint64_t size = RequireKnownType(tensor).item_size;
    if (size > 0) return size;
    throw OpError(Code::kUnimplemented, "tensor " + EscapeBytes(name_) + " of type " +
                                            TypeText(type_) + " cannot be remapped");
  }

  void CheckShape(std::span<const int64_t> table) const {
    if (table.size() <= static_cast<size_t>(axis_)) {
      throw OpError(Code::kInvalidArgument, "tensor " + EscapeBytes(name_) + " of shape " +
                                                ShapeText(table) + " has no axis " +
                                                std::to_string(axis_) + " to remap");
    }
    std::vector<int64_t> expected(table.begin(), table.end());
    // The constructor checked the sums.
    expected[0] = num_rows_ + (axis_ == 0 ? num_oov_ : 0);
    if (axis_ == 1) expected[1] = num_cols_ + num_oov_;
    if (expected == shape_) return;
    throw OpError(Code::kInvalidArgument,
                  "tensor " + EscapeBytes(name_) + " of shape " + ShapeText(table) +
                      " remapped along axis " + std::to_string(axis_) + " has shape " +
                      ShapeText(expected) + ", expected " + ShapeText(shape_));
  }

  void CheckBytes(uint64_t item_size) const {
    const std::optional<uint64_t> bytes = CheckedMul(*CheckedVolume(shape_), item_size);
    if (bytes && *bytes <= static_cast<uint64_t>(INT64_MAX)) return;
    Refuse("no tensor of type " + TypeText(type_) + " can have the shape " + ShapeText(shape_));
  }

  void CheckSize(uint64_t size, uint64_t item_size) const {
    const std::optional<uint64_t> volume = CheckedVolume(shape_);
    if (volume && CheckedMul(*volume, item_size) == size) return;
    throw OpError(Code::kUnimplemented, "tensor " + EscapeBytes(name_) + " of type " +
                                            TypeText(type_) + " cannot be remapped");
  }

  const std::string prefix_;
  const std::string name_;
  const TypeNumber type_;
  const int64_t axis_;
  const JoinRequest request_;
  const int64_t offset_;
  const int64_t num_rows_;
  const int64_t num_cols_;
  const int64_t num_oov_;
  const FillLayout fill_layout_;
  const std::vector<int64_t> shape_;
  const int64_t threads_;
};

}  // namespace

void RegisterRemapOp() {
  RegisterOpAndKernel<RemapKernel>({
      "TensorbundleRemapV1",
      {"prefix: string", "tensor: string", "dtype: type", "axis: int >= 0 = 0", "new_vocab: string",
       "old_vocab: string", "new_size: int >= -1 = -1", "old_size: int >= -1 = -1",
       "offset: int >= 0 = 0", "num_rows: int >= 0", "num_cols: int >= -1 = -1",
       "num_oov: int >= 0 = 0", "fill_layout: {'zero', 'cells', 'full'} = 'zero'",
       "shape: list(int)", "threads: int >= 0 = 0",
       // Not N * dtype: dtype could not be inferred without fills.
       "fill_types: list(type) >= 0"},
      {"fills: fill_types"},
      {"value: dtype"},
      OutputShapes::kUnknown,
  });
}

}  // namespace tensorbundle::op
