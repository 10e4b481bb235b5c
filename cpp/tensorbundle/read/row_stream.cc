// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/row_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

// Threads that wait for a device use no processor, so direct I/O runs on this many times the
// threads. At most kMaxWaitingThreads: each has a bounce buffer of 2 MiB, and a few requests of
// half that size keep any device busy. A caller that asks for one thread gets one.
constexpr int kWaitingThreadsPerThread = 2;
constexpr int kMaxWaitingThreads = 6;

int WaitingThreads(int threads) {
  return threads == 1 ? 1 : std::min(threads * kWaitingThreadsPerThread, kMaxWaitingThreads);
}

// For fewer bytes, starting another thread takes longer than it saves: they take a quarter of a
// millisecond.
constexpr uint64_t kMinBytesPerThread = uint64_t{2} << 20;

// Rethrows the exception that is being handled, with the slice's name in front of its message.
[[noreturn]] void RethrowNaming(const std::string& slice) {
  try {
    throw;
  } catch (const CorruptionError& error) {
    throw CorruptionError(slice + ": " + error.what());
  } catch (const IOFailure& error) {
    throw IOFailure(slice + ": " + error.what(), error.path(), error.error_number());
  }
}

}  // namespace

bool AllowsDirect(const Checkpoint& checkpoint, uint64_t stream_size) {
  return checkpoint.mode() == IoMode::kAuto && stream_size >= kMinDirectStream;
}

RowReader::RowReader(const Checkpoint& checkpoint, const Tensor& tensor,
                     const RowReadOptions& options)
    : checkpoint_(checkpoint), tensor_(tensor), options_(options), info_(RequireFixedSize(tensor)) {
  const std::span<const int64_t> shape = checkpoint.catalog().Shape(tensor);
  num_rows_ = shape.empty() ? 1 : shape[0];
  if (tensor.num_elements > 0) FindOverlaps(checkpoint.catalog(), tensor, WholeBox(shape));
  for (const StoredSlice& slice : checkpoint.catalog().Slices(tensor)) AddSlice(slice);
  if (tensor.num_elements == 0) return;
  row_size_ = tensor.num_elements / static_cast<uint64_t>(num_rows_) * info_.item_size;
  std::stable_sort(
      slices_.begin(), slices_.end(),
      [](const StreamedSlice& a, const StreamedSlice& b) { return a.first_row < b.first_row; });
}

void RowReader::AddSlice(const StoredSlice& slice) {
  // Unless options_.is_whole, rows are used before the checksum of their slice is compared.
  if (options_.verify && options_.is_whole) {
    checkpoint_.CheckSlice(tensor_, slice, Compared::kYes);
  } else {
    RequireReadable(checkpoint_, tensor_, slice);
  }
  Box box = checkpoint_.catalog().BoxOf(tensor_, slice);
  if (Volume(box) == 0) return;
  const Extent rows = box.empty() ? Extent{0, 1} : box[0];
  slices_.push_back({&slice, std::move(box), rows.start, rows.end()});
}

RowBatch RowReader::Plan(MutableByteSpan out) {
  const uint64_t num_left = static_cast<uint64_t>(num_rows_ - next_row_);
  const uint64_t count = out.empty() ? 0 : std::min(out.size() / row_size_, num_left);
  RowBatch batch{ReadPlan(checkpoint_, tensor_, info_, out.first(count * row_size_)), next_row_,
                 next_row_ + static_cast<int64_t>(count)};
  if (count == 0) return batch;
  Box box = WholeBox(checkpoint_.catalog().Shape(tensor_));
  if (!box.empty()) box[0] = {next_row_, static_cast<int64_t>(count)};
  next_row_ = batch.end_row;
  for (size_t i = first_open_; i < slices_.size() && slices_[i].first_row < next_row_; ++i) {
    if (slices_[i].end_row <= batch.first_row) continue;
    if (!slices_[i].is_entered) EnterSlice(&slices_[i]);
    PlanSlice(&slices_[i], box, &batch);
  }
  while (first_open_ < slices_.size() && slices_[first_open_].end_row <= next_row_) ++first_open_;
  return batch;
}

// The stream has reached the first row of a slice.
void RowReader::EnterSlice(StreamedSlice* streamed) {
  streamed->is_entered = true;
  const StoredSlice& slice = *streamed->slice;
  if (slice.encoding == Encoding::kRecord) {
    streamed->decoded = checkpoint_.records()->DecodeDense(tensor_, slice);  // verifies
  } else if (options_.verify) {
    streamed->has_checksum = StartVerify(checkpoint_, tensor_, slice,
                                         options_.is_whole ? Delivery::kWhole : Delivery::kParts);
  }
}

void RowReader::PlanSlice(StreamedSlice* streamed, const Box& box, RowBatch* batch) {
  const StoredSlice& slice = *streamed->slice;
  const Box intersection = *Intersect(streamed->box, box);
  SliceRead read{&slice, CopyLayout(streamed->box, box, intersection, info_.item_size)};
  if (slice.encoding == Encoding::kRecord) {
    read.decoded = streamed->decoded;
  } else {
    const File& file =
        PolicyOf(slice).Select(slice.offset + read.layout.first().source, read.layout.size());
    const bool is_direct = file.mode() == ReadMode::kDirect;
    batch->is_direct |= is_direct;
    read.file = &file;
    read.has_checksum = streamed->has_checksum;
    read.chunk_size = is_direct ? kDirectChunkSize : ChunkSizeOf(file);
    read.pool = &bounce_pool_;
  }
  batch->slices.push_back(streamed);
  batch->plan.Add(std::move(read));
}

void RowReader::Read(RowBatch* batch, int num_workers) const {
  const int all = batch->is_direct ? WaitingThreads(options_.threads) : options_.threads;
  const int share = (all + num_workers - 1) / num_workers;
  const uint64_t step = batch->is_direct ? kDirectChunkSize : kMinBytesPerThread;
  const auto useful = static_cast<int>(std::min(uint64_t{1} << 16, batch->plan.out_size() / step));
  ParallelFor(batch->plan.num_tasks(), std::clamp(useful, 1, std::max(1, share)),
              [&](size_t task) { RunTask(task, batch); });
}

void RowReader::RunTask(size_t task, RowBatch* batch) const {
  if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) {
    throw StreamStopped();
  }
  try {
    batch->plan.Run(task);
  } catch (const Error&) {
    RethrowNaming(Describe(checkpoint_.catalog(), tensor_, *batch->plan.ReadOf(task).slice));
  }
}

void RowReader::Finish(RowBatch* batch) {
  for (size_t i = 0; i < batch->slices.size(); ++i) {
    StreamedSlice* streamed = batch->slices[i];
    if (streamed->has_checksum) {
      const SliceRead& read = batch->plan.reads()[i];
      streamed->crc =
          crc32c::Combine(streamed->crc, batch->plan.Checksum(read), read.layout.size());
    }
    if (streamed->end_row <= batch->end_row) LeaveSlice(streamed);
  }
}

// The last byte of a slice was read.
void RowReader::LeaveSlice(StreamedSlice* streamed) {
  streamed->decoded = {};
  if (streamed->has_checksum) {
    FinishVerify(checkpoint_, tensor_, *streamed->slice, streamed->crc);
  }
}

PageCachePolicy& RowReader::PolicyOf(const StoredSlice& slice) {
  const auto found = policies_.find(slice.file);
  if (found != policies_.end()) return found->second;
  const File& file = checkpoint_.files().Get(slice.file);
  return policies_.emplace(slice.file, PageCachePolicy(file, options_.allow_direct)).first->second;
}

}  // namespace tensorbundle
