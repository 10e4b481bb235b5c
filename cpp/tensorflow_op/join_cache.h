// SPDX-License-Identifier: Apache-2.0
// Process-wide cache of vocabulary joins. The partitions of a variable, the variables of one
// vocabulary and the slots of an optimizer share a join. Joins of remote files (remote_files.h) are
// not cached.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "tensorbundle/vocab/join.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// Two vocabulary files, any paths that TensorFlow accepts, and how many of their lines are used.
struct JoinRequest {
  std::string new_vocab;
  std::string old_vocab;
  int64_t new_size;  // number of lines used; -1: all
  int64_t old_size;  // number of lines used; -1: all
};

// Reads the attributes new_vocab, old_vocab, new_size and old_size.
JoinRequest JoinRequestOf(const Attributes& attributes);

// The join of two vocabularies.
struct Joined {
  JoinResult result;
  int64_t old_lines;  // number of lines used
};

// For consecutive rows of the new vocabulary their row in the old one, or -1. Tensors get copies:
// TensorFlow may write to the memory of a tensor, and so may the consumer of a fetched array.
class JoinedIds {
 public:
  // Requires: the rows exist.
  JoinedIds(std::shared_ptr<const Joined> joined, int64_t offset, int64_t count)
      : joined_(std::move(joined)),
        offset_(static_cast<size_t>(offset)),
        size_(static_cast<size_t>(count)) {}

  size_t size() const { return size_; }

  // Copies the ids, on all processors. Returns how many are not -1.
  // Requires: out.size() == size().
  int64_t CopyTo(std::span<int64_t> out) const;
  int64_t CountPresent() const;

 private:
  std::shared_ptr<const Joined> joined_;
  size_t offset_;
  size_t size_;
};

// Returns the ids of the new rows [offset, offset + count). A file that was rewritten is read
// again.
// Throws: OpError and VocabularyError where TensorFlow's GenerateVocabRemapping fails.
JoinedIds IdsOf(const JoinRequest& request, int64_t offset, int64_t count);

// Statistics of a join, for checks before a graph runs. Python knows this layout.
struct JoinSummary {
  int64_t new_lines;  // in the file
  int64_t old_lines;  // number of lines used
  int64_t present;    // number of the first `count` new lines that the old vocabulary contains
  int64_t beyond;     // the first of these lines whose old row is >= `table_rows`, or -1
  int64_t row;        // the old row of `beyond`, or -1
};
JoinSummary Summarize(const JoinRequest& request, int64_t count, int64_t table_rows);

}  // namespace tensorbundle::op
