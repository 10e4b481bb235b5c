// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/row_stream.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/read/bounce_buffer.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

// Reads that wait for a device keep no processor busy: past the page cache this many times the
// threads are at work. No more than kMaxWaitingThreads, though: each has a bounce buffer of a
// megabyte, and some requests of that size keep any device busy. One thread stays one: whoever asks
// for that means it.
constexpr int kWaitingThreadsPerThread = 2;
constexpr int kMaxWaitingThreads = 6;

int WaitingThreads(int threads) {
  return threads == 1 ? 1 : std::min(threads * kWaitingThreadsPerThread, kMaxWaitingThreads);
}

// Fewer bytes than this per thread are not worth starting it: a quarter of a millisecond's work.
constexpr uint64_t kMinBytesPerThread = uint64_t{2} << 20;

// Rethrows what a read threw, naming the slice.
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

// A slice, and how far the stream has come in it.
struct RowReader::SliceState {
  const StoredSlice* slice;
  Box box;
  int64_t first_row;
  int64_t end_row;
  bool entered = false;
  bool check = false;  // compute a checksum on the way
  uint32_t crc = 0;    // of the bytes so far
  std::vector<uint8_t> decoded{};
};

// Where a slice meets the rows of a chunk.
struct RowReader::Part {
  SliceState* state;
  CopyLayout layout;
  const File* file;
};

// What one thread does at a time: some runs, or some bytes of one long run. Tasks of a slice follow
// each other in it without a gap.
struct RowReader::Task {
  size_t part;  // of the chunk
  uint64_t first_run;
  uint64_t num_runs;
  uint64_t begin;  // within the run, when num_runs is 1
  uint64_t size;
  uint32_t crc = 0;
};

RowReader::Chunk::Chunk(MutableByteSpan out, int64_t first_row, int64_t end_row)
    : out_(out), first_row_(first_row), end_row_(end_row) {}
RowReader::Chunk::Chunk(Chunk&&) noexcept = default;
RowReader::Chunk::~Chunk() = default;

bool AllowsDirect(const Checkpoint& checkpoint, uint64_t stream_size) {
  return checkpoint.mode() == IoMode::kAuto && stream_size >= kMinDirectStream;
}

RowReader::RowReader(const Checkpoint& checkpoint, const Tensor& tensor,
                     const RowReadOptions& options)
    : checkpoint_(checkpoint), tensor_(tensor), options_(options) {
  const DataTypeInfo& info = RequireFixedSize(tensor);
  item_size_ = info.item_size;
  swap_unit_ = checkpoint.catalog().big_endian ? info.swap_size : 1;
  const std::span<const int64_t> shape = checkpoint.catalog().Shape(tensor);
  num_rows_ = shape.empty() ? 1 : shape[0];
  if (tensor.num_elements > 0) FindOverlaps(checkpoint.catalog(), tensor, WholeBox(shape));
  for (const StoredSlice& slice : checkpoint.catalog().Slices(tensor)) AddSlice(slice);
  if (tensor.num_elements == 0) return;
  row_size_ = tensor.num_elements / static_cast<uint64_t>(num_rows_) * item_size_;
  std::stable_sort(states_.begin(), states_.end(), [](const SliceState& a, const SliceState& b) {
    return a.first_row < b.first_row;
  });
}

RowReader::~RowReader() = default;

void RowReader::AddSlice(const StoredSlice& slice) {
  // Chunks are handed out before the end of a slice is reached, and its checksum compared.
  if (options_.verify && options_.is_whole) {
    checkpoint_.CheckSlice(tensor_, slice, Compared::kYes);
  } else {
    RequireReadable(checkpoint_, tensor_, slice);
  }
  Box box = checkpoint_.catalog().BoxOf(tensor_, slice);
  if (Volume(box) == 0) return;
  const Extent rows = box.empty() ? Extent{0, 1} : box[0];
  states_.push_back({&slice, std::move(box), rows.start, rows.end()});
}

RowReader::Chunk RowReader::Plan(MutableByteSpan out) {
  const int64_t count = out.empty() ? 0 : static_cast<int64_t>(out.size() / row_size_);
  Chunk chunk(out, next_row_, next_row_ + count);
  if (count == 0) return chunk;
  Box box = WholeBox(checkpoint_.catalog().Shape(tensor_));
  if (!box.empty()) box[0] = {next_row_, count};
  next_row_ = chunk.end_row_;
  for (size_t i = first_open_; i < states_.size() && states_[i].first_row < next_row_; ++i) {
    if (states_[i].end_row <= chunk.first_row_) continue;
    if (!states_[i].entered) Enter(&states_[i]);
    PlanSlice(&states_[i], box, &chunk);
  }
  while (first_open_ < states_.size() && states_[first_open_].end_row <= next_row_) ++first_open_;
  return chunk;
}

void RowReader::PlanSlice(SliceState* state, const Box& box, Chunk* chunk) {
  const Box intersection = *Intersect(state->box, box);
  const size_t part = chunk->parts_.size();
  chunk->parts_.push_back({state, CopyLayout(state->box, box, intersection, item_size_), nullptr});
  const CopyLayout& layout = chunk->parts_[part].layout;
  const uint64_t size = layout.span_size() * layout.count();
  if (state->slice->encoding == Encoding::kRecord) {
    chunk->tasks_.push_back({part, 0, layout.count(), 0, size});
    return;
  }
  uint64_t first_byte = 0;
  layout.ForEach(0, 1, [&](const CopyLayout::Span& run) { first_byte = run.source; });
  const File& file = SourceOf(*state->slice).Select(state->slice->offset + first_byte, size);
  chunk->parts_[part].file = &file;
  const bool is_direct = file.mode() == ReadMode::kDirect;
  chunk->is_direct_ |= is_direct;
  const uint64_t step = is_direct ? kDirectChunkSize : kReadChunkSize;
  if (layout.span_size() >= step || layout.count() == 1) {
    for (uint64_t run = 0; run < layout.count(); ++run) {
      for (uint64_t begin = 0; begin < layout.span_size(); begin += step) {
        chunk->tasks_.push_back({part, run, 1, begin, std::min(step, layout.span_size() - begin)});
      }
    }
  } else {
    const uint64_t together = step / layout.span_size();
    for (uint64_t run = 0; run < layout.count(); run += together) {
      const uint64_t n = std::min(together, layout.count() - run);
      chunk->tasks_.push_back({part, run, n, 0, n * layout.span_size()});
    }
  }
}

// The stream has reached the first row of a slice.
void RowReader::Enter(SliceState* state) {
  state->entered = true;
  const StoredSlice& slice = *state->slice;
  if (slice.encoding == Encoding::kRecord) {
    state->decoded = checkpoint_.records()->DecodeDense(tensor_, slice);  // verifies
    return;
  }
  if (!options_.verify || checkpoint_.IsVerified(slice)) return;
  if (checkpoint_.records() == nullptr) {
    state->check = true;
  } else {  // its checksum covers the block around it too
    checkpoint_.records()->Verify(tensor_, slice);
    checkpoint_.SetVerified(slice);
  }
}

void RowReader::Run(Chunk* chunk, int lanes) const {
  const int all = chunk->is_direct_ ? WaitingThreads(options_.threads) : options_.threads;
  const int share = (all + lanes - 1) / lanes;
  const uint64_t step = chunk->is_direct_ ? kDirectChunkSize : kMinBytesPerThread;
  const auto useful = static_cast<int>(std::min(uint64_t{1} << 16, chunk->out_.size() / step));
  ParallelFor(chunk->tasks_.size(), std::clamp(useful, 1, std::max(1, share)),
              [&](size_t i) { RunTask(&chunk->tasks_[i], *chunk); });
}

void RowReader::RunTask(Task* task, const Chunk& chunk) const {
  if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) {
    throw StreamStopped();
  }
  const Part& part = chunk.parts_[task->part];
  if (part.state->slice->encoding == Encoding::kRecord) {
    part.layout.ForEach(0, task->num_runs, [&](const CopyLayout::Span& run) {
      std::memcpy(chunk.out_.data() + run.destination, part.state->decoded.data() + run.source,
                  part.layout.span_size());
    });
    return;
  }
  try {
    ReadTask(task, chunk);
  } catch (const Error&) {
    RethrowNaming(Describe(checkpoint_.catalog(), tensor_, *part.state->slice));
  }
}

void RowReader::ReadTask(Task* task, const Chunk& chunk) const {
  const Part& part = chunk.parts_[task->part];
  const auto read = [&](uint64_t position, MutableByteSpan bytes) {
    part.file->ReadAt(part.state->slice->offset + position, bytes);
    if (part.state->check) task->crc = crc32c::Value(bytes.data(), bytes.size());
    SwapBytes(bytes, swap_unit_);
  };
  CopyLayout::Span first{};
  part.layout.ForEach(task->first_run, 1, [&](const CopyLayout::Span& run) { first = run; });
  if (task->num_runs == 1) {
    const uint64_t position = first.source + task->begin;
    const bool is_direct = part.file->mode() == ReadMode::kDirect;  // has a buffer of its own
    const BounceBuffer landing(chunk.out_.subspan(first.destination + task->begin, task->size),
                               part.state->slice->offset + position,
                               is_direct ? BouncePolicy::kDestination : BouncePolicy::kFastest);
    read(position, landing.bytes());
    landing.CopyOut();
    return;
  }
  const auto together = std::make_unique_for_overwrite<uint8_t[]>(task->size);
  read(first.source, {together.get(), task->size});
  const uint8_t* from = together.get();
  part.layout.ForEach(task->first_run, task->num_runs, [&](const CopyLayout::Span& run) {
    std::memcpy(chunk.out_.data() + run.destination, from, part.layout.span_size());
    from += part.layout.span_size();
  });
}

void RowReader::Finish(Chunk* chunk) {
  for (const Task& task : chunk->tasks_) {
    SliceState& state = *chunk->parts_[task.part].state;
    if (state.check) state.crc = crc32c::Combine(state.crc, task.crc, task.size);
  }
  for (const Part& part : chunk->parts_) {
    if (part.state->end_row <= chunk->end_row_) Leave(part.state);
  }
}

// The last byte of a slice was read.
void RowReader::Leave(SliceState* state) {
  state->decoded = {};
  if (!state->check) return;
  CheckChecksum(checkpoint_, tensor_, *state->slice, state->crc);
  checkpoint_.SetVerified(*state->slice);
}

PageCachePolicy& RowReader::SourceOf(const StoredSlice& slice) {
  const auto found = sources_.find(slice.file);
  if (found != sources_.end()) return found->second;
  const File& file = checkpoint_.files().Get(slice.file);
  return sources_.emplace(slice.file, PageCachePolicy(file, options_.allow_direct)).first->second;
}

}  // namespace tensorbundle
