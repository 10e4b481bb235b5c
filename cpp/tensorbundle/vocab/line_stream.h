// SPDX-License-Identifier: Apache-2.0
// A stream of the lines of a file in batches, without the file in memory. The file is read twice:
// once to count its lines, once for their tokens.
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

// The vocabulary of a file, in a few bytes of memory per 128 kB of text. Each thread holds one
// range of the file at a time. Threads: immutable and thread-safe.
class LineStream {
 public:
  static constexpr uint64_t kChunkSize = uint64_t{128} << 10;  // fits a second-level cache

  // Counts the lines and finds the first empty one; line_scan.h defines a line. Keeps the file
  // open. The chunk size affects only time and memory. Throws: as Vocabulary::OfFile.
  LineStream(std::shared_ptr<const File> file, int threads, uint64_t chunk_size = kChunkSize);

  const std::string& name() const { return file_->path(); }
  static constexpr bool is_file() { return true; }
  const FileIdentity* identity() const { return &file_->identity(); }
  uint64_t size() const { return size_; }

  // As in Vocabulary.
  std::optional<uint64_t> first_empty_line() const { return first_empty_line_; }
  uint64_t end_of_first_empty_line() const { return end_of_first_empty_line_; }
  std::string Describe(uint64_t row) const;

  // Receives consecutive tokens and the row of the first of them. Called by several threads at the
  // same time. Vocabulary::kReadablePadding bytes follow each token.
  // Lifetime: the tokens are valid until the call returns.
  using Visit = std::function<void(uint64_t row, std::span<const std::string_view> tokens)>;

  // Calls `visit` with the tokens of rows [first, first + count), in batches, in any order.
  // Requires: the rows exist, and no line is empty.
  // Throws: CorruptionError if the file has changed since its lines were counted; IOFailure; what
  // `visit` throws.
  void ForEachBatch(uint64_t first, uint64_t count, int threads, const Visit& visit) const;

 private:
  // The lines that end in one chunk.
  struct LineRange {
    uint64_t begin;
    uint64_t end;
    uint64_t first_line;
    uint64_t num_lines;
  };
  struct Chunk;
  struct Scratch;
  class Pool;

  Chunk Survey(uint64_t begin, uint64_t end, Scratch* scratch) const;
  void Add(const LineRange& range);
  uint64_t ReadRange(const LineRange& range, Scratch* scratch) const;
  void VisitRange(const LineRange& range, uint64_t first, uint64_t count, Scratch* scratch,
                  const Visit& visit) const;
  [[noreturn]] void ThrowChanged(const LineRange& range) const;

  std::shared_ptr<const File> file_;
  std::vector<LineRange> ranges_;
  uint64_t size_ = 0;
  std::optional<uint64_t> first_empty_line_;
  uint64_t end_of_first_empty_line_ = 0;
};

}  // namespace tensorbundle
