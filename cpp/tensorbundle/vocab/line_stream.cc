// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/line_stream.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <list>
#include <mutex>
#include <utility>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/vocab/line_scan.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle {
namespace {

// Tokens per batch. TokenTable pipelines the look-ups of a batch: in a large batch, the time to
// fill and drain the pipeline is negligible.
constexpr size_t kTokensPerBatch = 2048;

// The bytes before a chunk that determine whether its first line is empty.
constexpr uint64_t kBytesBefore = 2;

}  // namespace

// The memory that a thread needs for a chunk or a range.
struct LineStream::Scratch {
  // Returns `size` bytes of unspecified contents, followed by kTextPadding zeros.
  uint8_t* Text(uint64_t size) {
    const auto needed = static_cast<size_t>(size) + kTextPadding;
    if (text.size() < needed) {
      text.clear();
      text.resize(needed + kChunkSize / 8);  // slices are a little larger than chunks
    }
    std::memset(text.data() + size, 0, kTextPadding);
    return text.data();
  }

  std::vector<uint8_t> text;
  std::array<std::string_view, kTokensPerBatch> batch;
};

// Reuses the scratch memory of finished tasks, because newly allocated memory is slow to fill.
class LineStream::Pool {
 public:
  class Lease {
   public:
    explicit Lease(Pool* pool) : pool_(pool) {
      const std::lock_guard<std::mutex> lock(pool_->mutex_);
      if (pool_->free_.empty()) {
        held_.emplace_back();
      } else {
        held_.splice(held_.begin(), pool_->free_, pool_->free_.begin());
      }
    }
    ~Lease() {
      const std::lock_guard<std::mutex> lock(pool_->mutex_);
      pool_->free_.splice(pool_->free_.begin(), held_);
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    Scratch* get() { return &held_.front(); }

   private:
    Pool* pool_;
    std::list<Scratch> held_;  // exactly one element
  };

 private:
  std::mutex mutex_;
  std::list<Scratch> free_;
};

struct LineStream::Chunk {
  LineSurvey lines;
  uint8_t last_byte = 0;
};

LineStream::LineStream(std::shared_ptr<const File> file, int threads, uint64_t chunk_size)
    : file_(std::move(file)) {
  const uint64_t num_bytes = file_->size();
  Vocabulary::CheckSize(name(), "bytes", num_bytes);
  std::vector<Chunk> chunks(static_cast<size_t>((num_bytes + chunk_size - 1) / chunk_size));
  Pool pool;
  ParallelFor(chunks.size(), threads, [&](size_t i) {
    Pool::Lease scratch(&pool);
    const uint64_t begin = i * chunk_size;
    chunks[i] = Survey(begin, std::min(num_bytes, begin + chunk_size), scratch.get());
  });

  uint64_t begin = 0;
  for (const Chunk& chunk : chunks) {
    const LineSurvey& lines = chunk.lines;
    if (lines.num_lines == 0) continue;
    if (lines.first_empty && !first_empty_line_) {
      first_empty_line_ = size_ + *lines.first_empty;
      end_of_first_empty_line_ = lines.end_of_first_empty;
    }
    Add({begin, lines.end_of_last, size_, lines.num_lines});
    begin = lines.end_of_last;
  }
  // The bytes after the last '\n' are a line, unless they are a single '\r'.
  const bool lone = num_bytes - begin == 1 && chunks.back().last_byte == '\r';
  if (begin < num_bytes && !lone) Add({begin, num_bytes, size_, 1});
}

void LineStream::Add(const LineRange& range) {
  ranges_.push_back(range);
  size_ += range.num_lines;
}

LineStream::Chunk LineStream::Survey(uint64_t begin, uint64_t end, Scratch* scratch) const {
  const uint64_t before = std::min(begin, kBytesBefore);
  const uint64_t size = end - begin;
  uint8_t* read = scratch->Text(before + size);
  file_->ReadAt(begin - before, {read, static_cast<size_t>(before + size)});
  const uint8_t* text = read + before;

  // The begin of the file counts as the end of a line.
  const uint64_t ends =
      uint64_t{before < 2 || text[-2] == '\n'} | 2 * uint64_t{before < 1 || text[-1] == '\n'};
  return {SurveyLines(text, size, begin, ends, [](uint64_t) {}), text[size - 1]};
}

std::string LineStream::Describe(uint64_t row) const {
  return "line " + std::to_string(row + 1) + " of " + name();
}

void LineStream::ForEachBatch(uint64_t first, uint64_t count, int threads,
                              const Visit& visit) const {
  if (count == 0) return;
  const auto holding = [this](uint64_t row) {
    const auto after = std::upper_bound(
        ranges_.begin(), ranges_.end(), row,
        [](uint64_t wanted, const LineRange& range) { return wanted < range.first_line; });
    return static_cast<size_t>(after - ranges_.begin()) - 1;
  };
  const size_t begin = holding(first);
  const size_t end = holding(first + (count - 1)) + 1;
  Pool pool;
  ParallelFor(end - begin, threads, [&](size_t i) {
    Pool::Lease scratch(&pool);
    VisitRange(ranges_[begin + i], first, count, scratch.get(), visit);
  });
}

// Reads the range, and appends a '\n' to its last line if it has none. Returns the size of the
// text.
uint64_t LineStream::ReadRange(const LineRange& range, Scratch* scratch) const {
  uint64_t size = range.end - range.begin;
  uint8_t* text = scratch->Text(size + 1);
  file_->ReadAt(range.begin, {text, static_cast<size_t>(size)});
  text[size] = 0;
  if (range.end == file_->size() && text[size - 1] != '\n') text[size++] = '\n';
  return size;
}

void LineStream::VisitRange(const LineRange& range, uint64_t first, uint64_t count,
                            Scratch* scratch, const Visit& visit) const {
  const uint64_t size = ReadRange(range, scratch);
  const uint8_t* text = scratch->text.data();
  const uint64_t end_row = range.first_line + range.num_lines;
  uint64_t row = range.first_line;
  const uint8_t* begin = text;
  size_t num_tokens = 0;
  for (uint64_t block = 0; block < size; block += kTextPadding) {
    for (uint64_t mask = NewlineMask(text + block); mask != 0; mask &= mask - 1) {
      const uint8_t* end = text + block + std::countr_zero(mask);
      const uint8_t* next = end + 1;
      if (end != begin && end[-1] == '\r') --end;
      if (end == begin || row == end_row) ThrowChanged(range);
      if (row - first < count) scratch->batch[num_tokens++] = AsText({begin, end});
      ++row;
      begin = next;
      if (num_tokens < kTokensPerBatch) continue;
      visit(row - kTokensPerBatch, scratch->batch);
      num_tokens = 0;
    }
  }
  if (row != end_row || begin != text + size) ThrowChanged(range);
  if (num_tokens == 0) return;
  const uint64_t last = std::min(end_row, first + count);
  visit(last - num_tokens, std::span(scratch->batch).first(num_tokens));
}

void LineStream::ThrowChanged(const LineRange& range) const {
  throw CorruptionError(name() + " has changed while it was read: the bytes from offset " +
                        std::to_string(range.begin) + " to " + std::to_string(range.end) +
                        " are no longer " + std::to_string(range.num_lines) + " lines");
}

}  // namespace tensorbundle
