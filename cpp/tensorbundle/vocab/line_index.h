// SPDX-License-Identifier: Apache-2.0
// An index from byte offsets to line numbers and back, of 1/32 of the size of the text.
//
// A hash table of lines stores the offsets of lines, not their numbers: the offset gives the bytes
// directly. The number is a count per 64-byte block plus the newlines in the block before the
// offset, which are in the cache by then.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tensorbundle/io/file.h"
#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/vocab/line_scan.h"

namespace tensorbundle {

class LineIndex {
 public:
  static constexpr uint64_t kBlockSize = kTextPadding;
  static constexpr uint64_t kChunkSize = uint64_t{1} << 16;  // so that counts within fit 16 bits

  LineIndex() = default;

  // Reads the whole file into `text` and indexes its lines; line_scan.h defines a line. Appends a
  // '\n' to a last line that has none.
  // Requires: `text` has file.size() bytes, then 1 + kTextPadding zeros.
  // Throws: CorruptionError if the file has shrunk; IOFailure; std::bad_alloc.
  static LineIndex Read(const File& file, uint8_t* text, int threads);

  // Indexes a text of `size` bytes whose lines end where `ends` has a bit: bit i of word b stands
  // for byte 64 b + i. Lifetime: the text must outlive the index.
  static LineIndex Marked(const uint8_t* text, uint64_t size, HugePageBuffer ends);

  uint64_t num_lines() const { return num_lines_; }
  std::optional<uint64_t> first_empty() const { return first_empty_; }
  uint64_t end_of_first_empty() const { return end_of_first_empty_; }

  // The chunk in which a line ends.
  size_t ChunkOf(uint64_t line) const;

  // The offsets of the end and the begin of a line. Requires: line < num_lines().
  uint64_t EndOf(uint64_t line) const;
  uint64_t BeginOf(uint64_t line) const { return line == 0 ? 0 : EndOf(line - 1) + 1; }

  // The number and the end of the line that contains the byte at `offset`. The end belongs to the
  // line.
  uint64_t LineAt(uint64_t offset) const {
    const uint64_t before = Ends(offset / kBlockSize) & ((uint64_t{1} << offset % kBlockSize) - 1);
    return chunks_[offset / kChunkSize].first_line + Counts()[offset / kBlockSize] +
           static_cast<uint64_t>(std::popcount(before));
  }
  uint64_t EndAt(uint64_t offset) const {
    uint64_t block = offset / kBlockSize;
    uint64_t ends = Ends(block) & (UINT64_MAX << offset % kBlockSize);
    while (ends == 0) ends = Ends(++block);
    return block * kBlockSize + static_cast<uint64_t>(std::countr_zero(ends));
  }
  void Prefetch(uint64_t offset) const { __builtin_prefetch(Counts() + offset / kBlockSize); }

  // Calls visit(line, begin, end) for each line that ends in the chunk, until it returns false.
  template <typename Visit>
  void ForEachIn(size_t chunk, const Visit& visit) const {
    uint64_t line = chunks_[chunk].first_line;
    uint64_t begin = chunks_[chunk].first_begin;
    for (uint64_t block = chunk * kBlocks; block < std::min(num_blocks_, (chunk + 1) * kBlocks);
         ++block) {
      for (uint64_t ends = Ends(block); ends != 0; ends &= ends - 1) {
        const uint64_t end = block * kBlockSize + static_cast<uint64_t>(std::countr_zero(ends));
        if (!visit(line++, begin, end)) return;
        begin = end + 1;
      }
    }
  }

 private:
  struct Chunk {
    uint64_t first_line;   // the first line that ends in the chunk or later
    uint64_t first_begin;  // the offset where that line begins
  };
  static constexpr uint64_t kBlocks = kChunkSize / kBlockSize;

  LineIndex(const uint8_t* text, uint64_t size);

  // Bit i is set if a line ends at byte i of the block.
  uint64_t Ends(uint64_t block) const {
    return marks_.data() == nullptr ? NewlineMask(text_ + block * kBlockSize)
                                    : static_cast<const uint64_t*>(marks_.data())[block];
  }
  uint16_t* Counts() const { return static_cast<uint16_t*>(counts_.data()); }

  const uint8_t* text_ = nullptr;
  uint64_t num_blocks_ = 0;
  uint64_t num_lines_ = 0;
  std::vector<Chunk> chunks_;
  HugePageBuffer counts_;  // per block: the number of lines that end before it in its chunk
  HugePageBuffer marks_;   // a bit per byte: whether a line ends there; empty if '\n' ends lines
  std::optional<uint64_t> first_empty_;
  uint64_t end_of_first_empty_ = 0;
};

}  // namespace tensorbundle
