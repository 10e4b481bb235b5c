// SPDX-License-Identifier: Apache-2.0
// The lines of a file that nobody need hold: they are read slice by slice, and forgotten.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/io/file.h"

namespace tensorbundle {

// What Vocabulary::OfFile would hold, in a few bytes per 128 kB of text. The file is read twice:
// once to count its lines, once for their tokens; each thread has one slice of it at a time.
// Immutable and thread-safe.
class FileLines {
 public:
  static constexpr uint64_t kChunkSize = uint64_t{128} << 10;  // stays in a second-level cache

  // Counts the lines, by threads, and looks at each: what a line is, line_survey.h says. Keeps the
  // file open. Chunks of another size change nothing but the time and the memory taken. Throws as
  // Vocabulary::OfFile.
  FileLines(std::shared_ptr<const File> file, int threads, uint64_t chunk_size = kChunkSize);

  const std::string& name() const { return file_->path(); }
  static constexpr bool is_file() { return true; }
  const FileIdentity* identity() const { return &file_->identity(); }
  uint64_t size() const { return size_; }

  // As those of Vocabulary.
  std::optional<uint64_t> first_empty_line() const { return first_empty_line_; }
  uint64_t end_of_first_empty_line() const { return end_of_first_empty_line_; }
  std::string Describe(uint64_t row) const;

  // Called by several threads at the same time, with the row of the first of the tokens. Behind
  // each of them lie Vocabulary::kReadablePadding bytes. They are gone when the call returns.
  using Visit = std::function<void(uint64_t row, std::span<const std::string_view> tokens)>;

  // Hands out the tokens of the rows [first, first + count), all of which there must be, in batches
  // in no order. No line may be empty. Throws as File::ReadAt; CorruptionError when other lines are
  // found than were counted; and what `visit` throws.
  void ForEachBatch(uint64_t first, uint64_t count, int threads, const Visit& visit) const;

 private:
  // Whole lines: those that end in one chunk.
  struct StoredSlice {
    uint64_t begin;
    uint64_t end;
    uint64_t first_line;
    uint64_t num_lines;
  };
  struct Chunk;
  struct Scratch;
  class Pool;

  Chunk Survey(uint64_t begin, uint64_t end, Scratch* scratch) const;
  void Add(const StoredSlice& slice);
  uint64_t ReadSlice(const StoredSlice& slice, Scratch* scratch) const;
  void VisitSlice(const StoredSlice& slice, uint64_t first, uint64_t count, Scratch* scratch,
                  const Visit& visit) const;
  [[noreturn]] void ThrowChanged(const StoredSlice& slice) const;

  std::shared_ptr<const File> file_;
  std::vector<StoredSlice> slices_;
  uint64_t size_ = 0;
  std::optional<uint64_t> first_empty_line_;
  uint64_t end_of_first_empty_line_ = 0;
};

}  // namespace tensorbundle
