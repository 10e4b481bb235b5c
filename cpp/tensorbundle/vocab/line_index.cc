// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/line_index.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "tensorbundle/base/parallel.h"
#include "tensorbundle/vocab/newlines.h"

namespace tensorbundle {
namespace {

// What a thread reads and counts at a time: small enough to be counted in its second-level cache.
constexpr uint64_t kChunkSize = uint64_t{512} << 10;
static_assert(kChunkSize % kTextPadding == 0, "only the last chunk may reach into the padding");

struct Chunk {
  uint64_t num_lines = 0;  // that end in it
  uint64_t first_line = 0;
  uint64_t first_empty = LineIndex::kNoLine;
};

uint64_t CountNewlines(const uint8_t* text, uint64_t begin, uint64_t end) {
  uint64_t count = 0;
  for (uint64_t block = begin; block < end; block += 64) {
    count += static_cast<uint64_t>(std::popcount(NewlineMask(text + block)));
  }
  return count;
}

// Records the start of each line whose predecessor ends in [begin, end).
void FindLines(const uint8_t* text, uint64_t begin, uint64_t end, Chunk* chunk,
               PackedOffsets* starts) {
  uint64_t line = chunk->first_line;
  for (uint64_t block = begin; block < end; block += 64) {
    for (uint64_t mask = NewlineMask(text + block); mask != 0; mask &= mask - 1) {
      const uint64_t at = block + static_cast<uint64_t>(std::countr_zero(mask));
      if (EndsEmptyLine(text + at, at)) chunk->first_empty = std::min(chunk->first_empty, line);
      starts->Set(++line, at + 1);
    }
  }
}

// Whether the bytes behind the last '\n' make a line.
bool EndsInOpenLine(ByteSpan text) {
  if (text.empty() || text.back() == '\n') return false;
  const bool lone = text.size() == 1 || text[text.size() - 2] == '\n';
  return !(lone && text.back() == '\r');
}

}  // namespace

LineIndex ReadLines(const File& file, uint8_t* text, int threads) {
  const uint64_t size = file.size();
  std::vector<Chunk> chunks(static_cast<size_t>((size + kChunkSize - 1) / kChunkSize));
  const auto begin_of = [](size_t i) { return i * kChunkSize; };
  const auto end_of = [size](size_t i) { return std::min(size, (i + 1) * kChunkSize); };

  ParallelFor(chunks.size(), threads, [&](size_t i) {
    const uint64_t begin = begin_of(i);
    file.ReadAt(begin, {text + begin, static_cast<size_t>(end_of(i) - begin)});
    chunks[i].num_lines = CountNewlines(text, begin, end_of(i));
  });

  LineIndex index;
  for (Chunk& chunk : chunks) {
    chunk.first_line = index.num_lines;
    index.num_lines += chunk.num_lines;
  }
  const bool open_line = EndsInOpenLine({text, static_cast<size_t>(size)});
  if (open_line) ++index.num_lines;
  index.starts = PackedOffsets(index.num_lines + 1);

  ParallelFor(chunks.size(), threads, [&](size_t i) {
    FindLines(text, begin_of(i), end_of(i), &chunks[i], &index.starts);
  });
  if (open_line) index.starts.Set(index.num_lines, size + 1);
  for (const Chunk& chunk : chunks)
    index.first_empty = std::min(index.first_empty, chunk.first_empty);
  return index;
}

}  // namespace tensorbundle
