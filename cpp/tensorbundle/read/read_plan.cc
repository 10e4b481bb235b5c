// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_plan.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/interrupt.h"
#include "tensorbundle/base/nontemporal_copy.h"

namespace tensorbundle {
namespace {

// Spans with smaller gaps are read together with the gaps: the gaps are on pages that the spans
// touch anyway, and a system call costs as much as copying a page.
constexpr uint64_t kMaxSpanGap = 4096;

uint64_t MaxGap(const File& file) {
  return file.mode() == ReadMode::kRequests ? kMaxRequestGap : kMaxSpanGap;
}

// Short spans of a slice are cut into about this many tasks at most, so that the plan stays small
// compared with the data.
constexpr uint64_t kMaxTasksOfShortSpans = 65536;

// Outputs from this size on are larger than the caches of a core.
constexpr uint64_t kMinNontemporalOutput = uint64_t{4} << 20;

// Whether a copy from the page cache at `offset` of a file would be slow. Processors compare the
// addresses of loads and earlier stores modulo 4 KiB first. If the destination is slightly ahead of
// the source modulo 4 KiB, each load seems to depend on a store just before it. On an AMD EPYC,
// such a copy takes three times as long.
bool IsAliased(const uint8_t* destination, uint64_t offset) {
  constexpr uint64_t kAliasing = 4096;
  const uint64_t ahead = (reinterpret_cast<uintptr_t>(destination) - offset) % kAliasing;
  return ahead > 0 && ahead < kCacheLine;
}

// Reads a range of a file through a bounce buffer if the destination cannot be read into, or only
// slowly: userfaultfd copies from a buffer, direct I/O needs aligned memory, and IsAliased().
// Lifetime: the destination must outlive the object.
class BounceBuffer {
 public:
  // `must_bounce`: also if the destination could be read into. `pool` may be null.
  BounceBuffer(MutableByteSpan destination, bool must_bounce, BouncePool* pool)
      : destination_(destination), must_bounce_(must_bounce), pool_(pool) {}
  ~BounceBuffer() {
    if (pooled_.data() != nullptr) pool_->GiveBack(std::move(pooled_));
  }
  BounceBuffer(const BounceBuffer&) = delete;
  BounceBuffer& operator=(const BounceBuffer&) = delete;

  // Reads, and returns the bytes, in the buffer or in the destination.
  MutableByteSpan Read(const File& file, uint64_t offset) {
    const uint64_t size = destination_.size();
    if (file.mode() == ReadMode::kDirect) {
      bytes_ = file.ReadBlocks(offset, size, NewBlocks(size));
      return bytes_;
    }
    bytes_ = destination_;
    const bool copies_page_cache = file.mode() == ReadMode::kBuffered;
    if (must_bounce_ || (copies_page_cache && IsAliased(destination_.data(), offset))) {
      const uint64_t skew = offset % kCacheLine;  // the alignment of the source: fastest to copy
      buffer_.emplace(size + skew);
      bytes_ = {buffer_->data() + skew, size};
    }
    file.ReadAt(offset, bytes_);
    return bytes_;
  }

  // Copies the bytes to the destination, if they are not there.
  void CopyOut() const {
    if (bytes_.data() == destination_.data()) return;
    NontemporalCopy(destination_.data(), bytes_.data(), bytes_.size());
    FenceNontemporalStores();
  }

 private:
  // Returns aligned memory for the blocks of `size` bytes.
  uint8_t* NewBlocks(uint64_t size) {
    if (pool_ != nullptr && size + 2 * kDirectAlignment <= BouncePool::kBufferSize) {
      pooled_ = pool_->Take();
      return static_cast<uint8_t*>(pooled_.data());
    }
    buffer_.emplace(size + 3 * kDirectAlignment);
    return buffer_->data() + -reinterpret_cast<uintptr_t>(buffer_->data()) % kDirectAlignment;
  }

  const MutableByteSpan destination_;
  const bool must_bounce_;
  BouncePool* const pool_;
  MutableByteSpan bytes_;
  std::optional<PageBuffer> buffer_;
  HugePageBuffer pooled_;  // of the pool
};

}  // namespace

HugePageBuffer BouncePool::Take() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!free_.empty()) {
      HugePageBuffer last = std::move(free_.back());
      free_.pop_back();
      return last;
    }
    free_.reserve(free_.capacity() + 1);  // so that GiveBack() allocates nothing
  }
  return HugePageBuffer(kBufferSize);
}

void BouncePool::GiveBack(HugePageBuffer buffer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(std::move(buffer));
}

void ReadPlan::Add(SliceRead read) {
  const CopyLayout& layout = read.layout;
  const uint64_t span_size = layout.span_size();
  read.first_task = tasks_.size();
  if (read.slice->encoding == Encoding::kRecord) {
    AddTask(&read, 0, layout.count(), 0, layout.size());
  } else if (read.scans_slice) {
    AddTask(&read, 0, layout.count(), 0, read.slice->size);
  } else if (span_size >= read.chunk_size || layout.count() == 1) {
    // Tasks that end at page boundaries of the destination share no page.
    const uint8_t* first = out_.data() + layout.first().destination;
    const uint64_t until_page = read.uffd != nullptr ? UffdBuffer::UntilPage(first) : 0;
    for (uint64_t span = 0; span < layout.count(); ++span) {
      uint64_t size = until_page > 0 ? until_page : read.chunk_size;
      for (uint64_t begin = 0; begin < span_size; begin += size, size = read.chunk_size) {
        size = std::min(size, span_size - begin);
        AddTask(&read, span, 1, begin, size);
      }
    }
  } else {
    const uint64_t per_chunk = read.chunk_size / std::max(span_size, layout.source_stride());
    const uint64_t step =
        std::max({uint64_t{1}, per_chunk, layout.count() / kMaxTasksOfShortSpans});
    for (uint64_t span = 0; span < layout.count(); span += step) {
      const uint64_t n = std::min(step, layout.count() - span);
      AddTask(&read, span, n, 0, n * span_size);
    }
  }
  reads_.push_back(std::move(read));
}

void ReadPlan::AddTask(SliceRead* read, uint64_t first_span, uint64_t num_spans, uint64_t begin,
                       uint64_t size) {
  tasks_.push_back({reads_.size(), first_span, num_spans, begin, size});
  ++read->num_tasks;
}

void ReadPlan::Run(size_t task_index) {
  ReadTask& task = tasks_[task_index];
  const SliceRead& read = reads_[task.read];
  if (read.slice->encoding == Encoding::kRecord) {
    CopyDecoded(read);
  } else if (read.scans_slice) {
    ScanSlice(read, &task);
  } else if (task.num_spans == 1) {
    ReadPartOfSpan(read, &task);
  } else if (read.layout.has_contiguous_source()) {
    ReadAdjacentSpans(read, &task);
  } else {
    ReadDistantSpans(read, task);
  }
}

uint32_t ReadPlan::Checksum(const SliceRead& read) const {
  uint32_t whole = 0;
  for (size_t i = read.first_task; i < read.first_task + read.num_tasks; ++i) {
    whole = crc32c::Combine(whole, tasks_[i].crc, tasks_[i].size);
  }
  return whole;
}

// Computes the checksum of stored bytes and converts them to native order.
void ReadPlan::FinishRead(const SliceRead& read, MutableByteSpan bytes, uint32_t* crc) const {
  if (read.has_checksum) *crc = crc32c::Value(bytes.data(), bytes.size());
  if (swaps_bytes()) SwapBytes(bytes, info_.swap_size);
}

void ReadPlan::ReadPartOfSpan(const SliceRead& read, ReadTask* task) const {
  const CopyLayout::Span span = read.layout.At(task->first_span);
  const MutableByteSpan part = out_.subspan(span.destination + task->begin, task->size);
  const uint64_t offset = read.slice->offset + span.source + task->begin;
  if (read.file->mode() == ReadMode::kRanges && !swaps_bytes()) {
    return CopyBorrowed(read, offset, part, &task->crc);
  }
  BounceBuffer buffer(part, read.uffd != nullptr, read.pool);
  const MutableByteSpan bytes = buffer.Read(*read.file, offset);
  FinishRead(read, bytes, &task->crc);
  if (read.uffd != nullptr) {
    read.uffd->Write(part.data(), bytes);
  } else {
    buffer.CopyOut();
  }
}

// Saves a copy if a RangeReader serves the file.
void ReadPlan::CopyBorrowed(const SliceRead& read, uint64_t offset, MutableByteSpan part,
                            uint32_t* crc) const {
  const ByteSpan bytes = read.file->Borrow(offset, part.size());
  if (read.has_checksum) *crc = crc32c::Value(bytes.data(), bytes.size());
  if (read.uffd != nullptr) {
    read.uffd->Write(part.data(), bytes);
  } else if (out_.size() >= kMinNontemporalOutput) {
    NontemporalCopy(part.data(), bytes.data(), bytes.size());
    FenceNontemporalStores();
  } else {
    std::memcpy(part.data(), bytes.data(), bytes.size());
  }
}

void ReadPlan::ReadAdjacentSpans(const SliceRead& read, ReadTask* task) const {
  const CopyLayout& layout = read.layout;
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(task->size);
  const uint8_t* from = buffer.get();
  const MutableByteSpan bytes{buffer.get(), task->size};
  read.file->ReadAt(read.slice->offset + layout.At(task->first_span).source, bytes);
  FinishRead(read, bytes, &task->crc);
  layout.ForEach(task->first_span, task->num_spans, [&](const CopyLayout::Span& span) {
    std::memcpy(out_.data() + span.destination, from, layout.span_size());
    from += layout.span_size();
  });
}

// Reads spans together if the gaps between them are small, else one by one.
void ReadPlan::ReadDistantSpans(const SliceRead& read, const ReadTask& task) const {
  const uint64_t span_size = read.layout.span_size();
  const uint64_t max_gap = MaxGap(*read.file);
  std::vector<CopyLayout::Span> spans;
  spans.reserve(task.num_spans);
  read.layout.ForEach(task.first_span, task.num_spans,
                      [&](const CopyLayout::Span& span) { spans.push_back(span); });
  std::vector<uint8_t> buffer;
  for (size_t first = 0; first < spans.size();) {
    size_t last = first;
    while (last + 1 < spans.size() &&
           spans[last + 1].source - (spans[last].source + span_size) <= max_gap) {
      ++last;
    }
    const uint64_t start = spans[first].source;
    buffer.resize(spans[last].source + span_size - start);
    read.file->ReadAt(read.slice->offset + start, buffer);
    FinishRead(read, buffer, nullptr);
    for (; first <= last; ++first) {
      std::memcpy(out_.data() + spans[first].destination,
                  buffer.data() + spans[first].source - start, span_size);
    }
  }
}

// Reads the slice chunk by chunk, and copies the bytes of the spans that each chunk contains. A
// span may continue in the next chunk. Spans are in the order of their offsets in the slice.
void ReadPlan::ScanSlice(const SliceRead& read, ReadTask* task) const {
  const uint64_t span_size = read.layout.span_size();
  const uint64_t slice_size = read.slice->size;
  const bool borrows = read.file->mode() == ReadMode::kRanges && !swaps_bytes();
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(
      borrows ? 0 : std::min(read.chunk_size, slice_size));
  const uint8_t* chunk = buffer.get();
  uint64_t begin = 0;  // of the chunk
  uint64_t end = 0;
  uint32_t whole = 0;
  const auto read_next = [&] {
    CheckInterrupt();
    begin = end;
    const uint64_t size = std::min(read.chunk_size, slice_size - begin);
    end += size;
    uint32_t crc = 0;
    if (borrows) {
      chunk = read.file->Borrow(read.slice->offset + begin, size).data();
      crc = crc32c::Value(chunk, size);
    } else {
      const MutableByteSpan bytes{buffer.get(), size};
      read.file->ReadAt(read.slice->offset + begin, bytes);
      FinishRead(read, bytes, &crc);
    }
    whole = crc32c::Combine(whole, crc, size);
  };
  read.layout.ForEach(0, read.layout.count(), [&](const CopyLayout::Span& span) {
    for (uint64_t done = 0; done < span_size;) {
      const uint64_t position = span.source + done;
      while (position >= end) read_next();
      const uint64_t size = std::min(span_size - done, end - position);
      std::memcpy(out_.data() + span.destination + done, chunk + (position - begin), size);
      done += size;
    }
  });
  while (end < slice_size) read_next();
  task->crc = whole;
}

void ReadPlan::CopyDecoded(const SliceRead& read) const {
  std::vector<uint8_t> own;
  ByteSpan elements = read.decoded;
  if (elements.empty()) {
    own = checkpoint_.records()->DecodeDense(tensor_, *read.slice);
    elements = own;
  }
  read.layout.ForEach(0, read.layout.count(), [&](const CopyLayout::Span& span) {
    std::memcpy(out_.data() + span.destination, elements.data() + span.source,
                read.layout.span_size());
  });
}

}  // namespace tensorbundle
