// SPDX-License-Identifier: Apache-2.0
// Which row of an old vocabulary has the token of each row of a new one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/line_stream.h"
#include "tensorbundle/vocab/page_memory.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle {

enum class Duplicates : uint8_t {
  kRefuse,    // an old vocabulary that has a token twice is an error
  kTakeFirst  // its first row counts
};

struct JoinOptions {
  static constexpr int64_t kAll = -1;

  int64_t new_offset = 0;   // the first row of the new vocabulary that is wanted
  int64_t num_new = kAll;   // how many rows are wanted; kAll: all that follow
  int64_t old_size = kAll;  // how many rows of the old vocabulary exist, from its first; kAll: all
  Duplicates old_duplicates = Duplicates::kRefuse;
  int threads = 1;
};

// Owns the ids.
class JoinResult {
 public:
  explicit JoinResult(uint64_t size)
      : memory_(static_cast<size_t>(size) * sizeof(int64_t)), size_(static_cast<size_t>(size)) {}

  // Per wanted row of the new vocabulary, its row in the old one, or -1.
  std::span<const int64_t> ids() const {
    return {static_cast<const int64_t*>(memory_.data()), size_};
  }
  std::span<int64_t> mutable_ids() { return {static_cast<int64_t*>(memory_.data()), size_}; }

  uint64_t num_present = 0;  // how many ids are not -1

 private:
  PageMemory memory_;
  size_t size_;
};

// Accepts and refuses what TensorFlow's GenerateVocabRemapping does. A token that the new
// vocabulary has twice is no error: both rows get the same id.
//
// Throws VocabularyError, naming the file and the line, for
// - a new file without a line, or with an empty line, wanted or not;
// - an old file without a line;
// - an old file with an empty line, or with a token it had before, among the lines that count. The
//   first such line is named.
//
// Throws std::invalid_argument for
// - an offset or size below 0 that is not kAll, or an old_size of 0;
// - new_offset + num_new beyond the end of the new vocabulary;
// - old_size beyond the end of the old one.
//
// Where several hold, TensorFlow's choice is reported: the new vocabulary before the old one, and
// faulty lines before a size that is too large. Sequences in memory may be empty and have empty
// tokens; duplicates in an old one are refused as well.
JoinResult Join(const Vocabulary& new_vocabulary, const Vocabulary& old_vocabulary,
                const JoinOptions& options);

// The same, holding nothing of the new vocabulary. Throws also as FileLines::ForEachBatch.
JoinResult Join(const FileLines& new_lines, const Vocabulary& old_vocabulary,
                const JoinOptions& options);

// The same of two files. The new one is read to its end and judged before the old one is read.
// Throws also as Vocabulary::OfFile.
JoinResult JoinFiles(std::shared_ptr<const File> new_file, std::shared_ptr<const File> old_file,
                     const JoinOptions& options);

}  // namespace tensorbundle
