// SPDX-License-Identifier: Apache-2.0
// Which line of a text holds a byte, and where a line lies, in a thirty-second of the text's size.
//
// Places, not lines, are what a hash table of lines holds: a place leads to the bytes at once, and
// the number of the line is counted from the ends of lines around it, which are at hand then.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/line_scan.h"
#include "tensorbundle/vocab/page_memory.h"

namespace tensorbundle {

class LineIndex {
 public:
  static constexpr uint64_t kBlockSize = kTextPadding;
  static constexpr uint64_t kChunkSize = uint64_t{1} << 16;  // so that counts within fit 16 bits

  LineIndex() = default;

  // Reads the whole file into `text` and finds its lines, by threads; line_survey.h says what a
  // line is. `text` has file.size() bytes and 1 + kTextPadding zeros behind them; a last line that
  // has no '\n' gets one. Throws as File::ReadAt, and std::bad_alloc.
  static LineIndex Read(const File& file, uint8_t* text, int threads);

  // Of a text of `size` bytes that is kept elsewhere, and whose lines end where `ends` has a bit:
  // bit i of word b tells of byte 64 b + i.
  static LineIndex Marked(const uint8_t* text, uint64_t size, PageMemory ends);

  uint64_t num_lines() const { return num_lines_; }
  std::optional<uint64_t> first_empty() const { return first_empty_; }
  uint64_t end_of_first_empty() const { return end_of_first_empty_; }

  // The chunk where a line ends.
  size_t ChunkOf(uint64_t line) const;

  // Where a line ends. It is below num_lines().
  uint64_t EndOf(uint64_t line) const;
  uint64_t BeginOf(uint64_t line) const { return line == 0 ? 0 : EndOf(line - 1) + 1; }

  // The line that has the byte at `place`, its end included, and where that is.
  uint64_t LineAt(uint64_t place) const {
    const uint64_t before = Ends(place / kBlockSize) & ((uint64_t{1} << place % kBlockSize) - 1);
    return chunks_[place / kChunkSize].first_line + Counts()[place / kBlockSize] +
           static_cast<uint64_t>(std::popcount(before));
  }
  uint64_t EndAt(uint64_t place) const {
    uint64_t block = place / kBlockSize;
    uint64_t ends = Ends(block) & (UINT64_MAX << place % kBlockSize);
    while (ends == 0) ends = Ends(++block);
    return block * kBlockSize + static_cast<uint64_t>(std::countr_zero(ends));
  }
  void Prefetch(uint64_t place) const { __builtin_prefetch(Counts() + place / kBlockSize); }

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
    uint64_t first_line;   // the first one that ends in it or later
    uint64_t first_begin;  // where that begins
  };
  static constexpr uint64_t kBlocks = kChunkSize / kBlockSize;

  LineIndex(const uint8_t* text, uint64_t size);

  // Bit i tells whether a line ends at byte i of the block.
  uint64_t Ends(uint64_t block) const {
    return marks_.data() == nullptr ? NewlineMask(text_ + block * kBlockSize)
                                    : static_cast<const uint64_t*>(marks_.data())[block];
  }
  uint16_t* Counts() const { return static_cast<uint16_t*>(counts_.data()); }

  const uint8_t* text_ = nullptr;
  uint64_t num_blocks_ = 0;
  uint64_t num_lines_ = 0;
  std::vector<Chunk> chunks_;
  PageMemory counts_;  // per block, the lines that end before it in its chunk
  PageMemory marks_;   // the ends of lines, a bit per byte; nothing where they are what '\n' says
  std::optional<uint64_t> first_empty_;
  uint64_t end_of_first_empty_ = 0;
};

}  // namespace tensorbundle
