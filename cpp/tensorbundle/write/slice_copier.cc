// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/slice_copier.h"

#include <algorithm>
#include <numeric>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/io/parallel_read.h"

namespace tensorbundle {
namespace {

// Tasks that are copied before their checksums are compared: few enough to detect corruption soon,
// enough to make the cost of starting threads negligible.
constexpr size_t kMaxBatch = 256;

// A range of a slice that one thread copies.
struct CopyTask {
  const SliceCopy* slice;
  uint64_t start;  // in the slice
  uint64_t size;
  std::optional<uint32_t> checksum{};
};

class SliceCopier {
 public:
  SliceCopier(int threads, const WriteProgress& progress)
      : threads_(threads), progress_(progress) {}

  void Add(const SliceCopy& slice) {
    const uint64_t size = slice.size;
    if (slice.encoding != Encoding::kDense || size == 0) {
      AddTask({&slice, 0, size});  // StreamingElements needs all bytes in order
      return;
    }
    const uint64_t step = ChunkSizeOf(*slice.source);
    for (uint64_t start = 0; start < size; start += step) {
      AddTask({&slice, start, std::min(step, size - start)});
    }
  }

  // Copies the slices that were added since the last call.
  void Flush() {
    ParallelFor(batch_.size(), std::min(threads_, kMaxCopyThreads),
                [&](size_t i) { Copy(&batch_[i]); });
    for (const CopyTask& task : batch_) VerifyChecksum(task);
    if (!batch_.empty()) batch_.back().slice->to->StartWriteback();
    batch_.clear();
  }

 private:
  void AddTask(const CopyTask& task) {
    batch_.push_back(task);
    if (batch_.size() == kMaxBatch) Flush();
  }

  void Copy(CopyTask* task) const {
    const SliceCopy& slice = *task->slice;
    const uint64_t chunk = std::min(ChunkSizeOf(*slice.source), task->size);
    const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(chunk);
    const auto read = [&](uint64_t at, uint64_t size) {
      const MutableByteSpan bytes(buffer.get(), size);
      slice.source->ReadAt(slice.offset + at, bytes);
      slice.to->WriteAt(slice.to_offset + at, bytes);
      progress_(size);
      return ByteSpan(bytes);
    };
    if (slice.encoding == Encoding::kDense) {
      const ByteSpan bytes = read(task->start, task->size);
      task->checksum = crc32c::Value(bytes.data(), bytes.size());
      return;
    }
    StreamingElements elements(slice.encoding, slice.num_elements, slice.big_endian);
    for (uint64_t at = 0; at < task->size; at += chunk) {
      elements.Extend(read(at, std::min(chunk, task->size - at)));
    }
    task->checksum = elements.Value();
  }

  // Combines the checksum of a task with those of the tasks before it. Compares the checksum of the
  // slice after its last task.
  void VerifyChecksum(const CopyTask& task) {
    const SliceCopy& slice = *task.slice;
    if (!task.checksum) Throw(slice, "its elements are malformed, or a checksum in them differs");
    if (task.start == 0) checksum_ = 0;
    checksum_ = crc32c::Combine(checksum_, *task.checksum, task.size);
    if (task.start + task.size < slice.size) return;
    if (!slice.has_checksum) Throw(slice, "the index stores no checksum to verify it with");
    const uint32_t expected = crc32c::Unmask(slice.masked_checksum);
    if (checksum_ != expected) {
      Throw(slice, "the stored CRC32C is " + std::to_string(expected) + ", the bytes give " +
                       std::to_string(checksum_));
    }
  }

  [[noreturn]] static void Throw(const SliceCopy& slice, const std::string& what) {
    throw CorruptionError(slice.source->path() + ": " + slice.describe() + " at offset " +
                          std::to_string(slice.offset) + ", " + std::to_string(slice.size) +
                          " bytes: " + what);
  }

  const int threads_;
  const WriteProgress& progress_;
  std::vector<CopyTask> batch_;
  uint32_t checksum_ = 0;  // of the current slice, up to the current task
};

}  // namespace

bool CanCopySlices(const Checkpoint& checkpoint) {
  const bool is_v1 = checkpoint.records() != nullptr;  // its checksums are of blocks, not slices
  return !is_v1 && !checkpoint.catalog().big_endian;
}

SliceCopy CopyOf(const std::shared_ptr<const Checkpoint>& checkpoint, const Tensor& tensor,
                 const StoredSlice& slice) {
  const Catalog& catalog = checkpoint->catalog();
  checkpoint->CheckSlice(tensor, slice, Compared::kYes);
  return {
      .source = {checkpoint, &checkpoint->files().Get(slice.file)},
      .offset = slice.offset,
      .size = slice.size,
      .encoding = slice.encoding,
      .num_elements = Volume(catalog.BoxOf(tensor, slice)),
      .has_checksum = slice.has_checksum,
      .masked_checksum = slice.masked_checksum,
      .describe = [&catalog, &tensor, &slice] { return Describe(catalog, tensor, slice); },
  };
}

std::optional<std::vector<uint64_t>> RowRangeOffsets(const Catalog& catalog, const Tensor& tensor) {
  const std::span<const int64_t> dims = catalog.Shape(tensor);
  const std::span<const StoredSlice> slices = catalog.Slices(tensor);
  const Box whole = WholeBox(dims);
  std::vector<size_t> order(slices.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::vector<Extent> rows(slices.size());
  for (size_t i = 0; i < slices.size(); ++i) {
    if (slices[i].encoding != Encoding::kDense) return std::nullopt;
    const Box box = catalog.BoxOf(tensor, slices[i]);
    if (!dims.empty() && !std::equal(box.begin() + 1, box.end(), whole.begin() + 1)) {
      return std::nullopt;
    }
    rows[i] = dims.empty() ? Extent{0, 1} : box.front();
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return rows[a].start < rows[b].start; });
  std::vector<uint64_t> offsets(slices.size());
  int64_t next_row = 0;
  uint64_t offset = 0;
  for (const size_t i : order) {
    if (rows[i].start != next_row) return std::nullopt;
    next_row = rows[i].end();
    offsets[i] = offset;
    offset += slices[i].size;
  }
  if (next_row != (dims.empty() ? 1 : dims.front())) return std::nullopt;
  return offsets;
}

void CopySlices(std::span<const SliceCopy> slices, int threads, const WriteProgress& progress) {
  SliceCopier copier(threads, progress);
  for (const SliceCopy& slice : slices) copier.Add(slice);
  copier.Flush();
}

}  // namespace tensorbundle
