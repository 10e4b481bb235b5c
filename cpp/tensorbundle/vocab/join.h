// SPDX-License-Identifier: Apache-2.0
// A hash join of two vocabularies: for each row of the new one, the row of the old one that has the
// same token.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "tensorbundle/io/file.h"
#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/vocab/line_stream.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle {

enum class Duplicates : uint8_t {
  kRefuse,    // a token that occurs twice in the old vocabulary is an error
  kTakeFirst  // the first row of the token is used
};

struct JoinOptions {
  static constexpr int64_t kAll = -1;

  int64_t new_offset = 0;   // the first row of the new vocabulary to join
  int64_t num_new = kAll;   // how many rows to join; kAll: all that follow
  int64_t old_size = kAll;  // how many rows of the old vocabulary to use; kAll: all
  bool compact = false;     // store ids in four bytes each, if the old vocabulary is that small
  Duplicates old_duplicates = Duplicates::kRefuse;
  int threads = 1;
};

// Owns the row ids of a join: for each requested row of the new vocabulary, its row in the old one,
// or -1.
class JoinResult {
 public:
  JoinResult(uint64_t size, bool is_compact)
      : size_(static_cast<size_t>(size)), is_compact_(is_compact), memory_(num_bytes()) {}

  size_t size() const { return size_; }
  size_t num_bytes() const { return size_ * (is_compact_ ? sizeof(int32_t) : sizeof(int64_t)); }

  // Requires: the ids are not compact.
  std::span<const int64_t> ids() const { return As<const int64_t>(); }

  // Returns visit(ids), with a span of int32_t if they are compact, and of int64_t otherwise.
  template <typename Visitor>
  auto Visit(const Visitor& visit) const {
    return is_compact_ ? visit(As<const int32_t>()) : visit(As<const int64_t>());
  }
  template <typename Visitor>
  auto Visit(const Visitor& visit) {
    return is_compact_ ? visit(As<int32_t>()) : visit(As<int64_t>());
  }

  uint64_t num_present = 0;  // how many ids are not -1

 private:
  template <typename Id>
  std::span<Id> As() const {
    return {static_cast<Id*>(memory_.data()), size_};
  }

  size_t size_;
  bool is_compact_;
  HugePageBuffer memory_;
};

// Joins two vocabularies. Accepts and rejects the same inputs as TensorFlow's
// GenerateVocabRemapping. A token may occur twice in the new vocabulary: both rows get the same id.
//
// Throws: VocabularyError, with the file and the line, for
// - a new file without lines, or with an empty line in any row;
// - an old file without lines;
// - an old file with an empty line or a duplicate token in its first `old_size` rows. The message
//   names the first such line.
//
// Throws: std::invalid_argument for
// - an offset or size below 0 that is not kAll, or an old_size of 0;
// - new_offset + num_new beyond the end of the new vocabulary;
// - old_size beyond the end of the old vocabulary.
//
// With several errors, TensorFlow's choice is reported: errors of the new vocabulary before those
// of the old one, and invalid lines before a size that is too large. Vocabularies in memory may be
// empty and have empty tokens; duplicates in the old one are errors as well.
JoinResult Join(const Vocabulary& new_vocabulary, const Vocabulary& old_vocabulary,
                const JoinOptions& options);

// As above, without the new vocabulary in memory. Throws also as LineStream::ForEachBatch.
JoinResult Join(const LineStream& new_lines, const Vocabulary& old_vocabulary,
                const JoinOptions& options);

// As above, for two files. Reads and checks all of the new file before it reads the old one.
// Throws also as Vocabulary::OfFile.
JoinResult JoinFiles(std::shared_ptr<const File> new_file, std::shared_ptr<const File> old_file,
                     const JoinOptions& options);

}  // namespace tensorbundle
