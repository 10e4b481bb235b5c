// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/line_index.h"

#include <algorithm>
#include <utility>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/vocab/line_scan.h"

namespace tensorbundle {
namespace {

// Chunks that a thread reads at a time: few enough to stay in its second-level cache.
constexpr uint64_t kChunksPerTask = 4;

// Whether the bytes after the last '\n' are a line.
bool HasUnterminatedLine(ByteSpan text) {
  if (text.empty() || text.back() == '\n') return false;
  const bool lone = text.size() == 1 || text[text.size() - 2] == '\n';
  return !(lone && text.back() == '\r');
}

// Checks the first lines of a chunk for empty ones. SurveyLines skipped these checks because the
// bytes before the chunk had not been read: lines that end at the first byte of the chunk, or at
// the second one after a '\r'.
void CheckFirstLines(const uint8_t* text, uint64_t begin, uint64_t end, LineSurvey* survey) {
  uint64_t line = 0;
  for (uint64_t at = begin; at < std::min(end, begin + 2); ++at) {
    if (text[at] != '\n') continue;
    if (EndsEmptyLine(text + at, at)) {
      survey->first_empty = line;
      survey->end_of_first_empty = at + 1;
      return;
    }
    ++line;
  }
}

}  // namespace

LineIndex::LineIndex(const uint8_t* text, uint64_t size)
    : text_(text),
      num_blocks_((size + kBlockSize - 1) / kBlockSize),
      chunks_(static_cast<size_t>((size + kChunkSize - 1) / kChunkSize)),
      counts_(static_cast<size_t>(num_blocks_) * sizeof(uint16_t)) {}

LineIndex LineIndex::Read(const File& file, uint8_t* text, int threads) {
  const uint64_t size = file.size();
  LineIndex index(text, size + 1);  // includes the '\n' that the last line may get
  std::vector<LineSurvey> surveys(index.chunks_.size());
  constexpr uint64_t kTaskSize = kChunksPerTask * kChunkSize;
  ParallelFor(static_cast<size_t>((size + kTaskSize - 1) / kTaskSize), threads, [&](size_t task) {
    const uint64_t task_begin = task * kTaskSize;
    const uint64_t task_end = std::min(size, task_begin + kTaskSize);
    file.ReadAt(task_begin, {text + task_begin, static_cast<size_t>(task_end - task_begin)});
    for (uint64_t begin = task_begin; begin < task_end; begin += kChunkSize) {
      uint16_t* count = index.Counts() + begin / kBlockSize;
      surveys[begin / kChunkSize] =
          SurveyLines(text + begin, std::min(kChunkSize, task_end - begin), begin, 0,
                      [&](uint64_t num_lines) { *count++ = static_cast<uint16_t>(num_lines); });
    }
  });

  // The index covers one byte more than the file, for the '\n' of an unterminated last line. If the
  // file fills its last block, that byte is in a block of its own, which no task has counted.
  LineSurvey& last = surveys[size / kChunkSize];
  if (size % kBlockSize == 0) {
    index.Counts()[size / kBlockSize] = static_cast<uint16_t>(last.num_lines);
  }
  if (HasUnterminatedLine({text, static_cast<size_t>(size)})) {
    text[size] = '\n';
    ++last.num_lines;
    last.end_of_last = size + 1;
  }
  uint64_t next = 0;  // where the next line begins
  for (size_t i = 0; i < surveys.size(); ++i) {
    LineSurvey& survey = surveys[i];
    const uint64_t begin = i * kChunkSize;
    CheckFirstLines(text, begin, std::min(size, begin + kChunkSize), &survey);
    if (survey.first_empty && !index.first_empty_) {
      index.first_empty_ = index.num_lines_ + *survey.first_empty;
      index.end_of_first_empty_ = survey.end_of_first_empty;
    }
    index.chunks_[i] = {index.num_lines_, next};
    index.num_lines_ += survey.num_lines;
    if (survey.num_lines > 0) next = survey.end_of_last;
  }
  return index;
}

LineIndex LineIndex::Marked(const uint8_t* text, uint64_t size, HugePageBuffer ends) {
  LineIndex index(text, size);
  index.marks_ = std::move(ends);
  uint64_t next = 0;
  for (uint64_t block = 0; block < index.num_blocks_; ++block) {
    Chunk& chunk = index.chunks_[block / kBlocks];
    if (block % kBlocks == 0) chunk = {index.num_lines_, next};
    index.Counts()[block] = static_cast<uint16_t>(index.num_lines_ - chunk.first_line);
    const uint64_t marks = index.Ends(block);
    if (marks == 0) continue;
    index.num_lines_ += static_cast<uint64_t>(std::popcount(marks));
    next = (block + 1) * kBlockSize - static_cast<uint64_t>(std::countl_zero(marks));
  }
  return index;
}

size_t LineIndex::ChunkOf(uint64_t line) const {
  const auto after = std::upper_bound(
      chunks_.begin(), chunks_.end(), line,
      [](uint64_t wanted, const Chunk& chunk) { return wanted < chunk.first_line; });
  return static_cast<size_t>(after - chunks_.begin()) - 1;
}

uint64_t LineIndex::EndOf(uint64_t line) const {
  const size_t chunk = ChunkOf(line);
  uint64_t rest = line - chunks_[chunk].first_line;
  const uint16_t* begin = Counts() + chunk * kBlocks;
  const uint16_t* end = Counts() + std::min(num_blocks_, (chunk + 1) * kBlocks);
  const uint16_t* block = std::upper_bound(begin, end, rest) - 1;
  uint64_t ends = Ends(static_cast<uint64_t>(block - Counts()));
  for (rest -= *block; rest > 0; --rest) ends &= ends - 1;
  return static_cast<uint64_t>(block - Counts()) * kBlockSize +
         static_cast<uint64_t>(std::countr_zero(ends));
}

}  // namespace tensorbundle
