// SPDX-License-Identifier: Apache-2.0
// Joins of vocabularies, made once per process and shared: by the partitions of a variable, by
// variables on one vocabulary, by optimizer slots.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tensorbundle/vocab/join.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// Two vocabulary files, and how many of their lines count.
struct JoinRequest {
  std::string new_vocab;
  std::string old_vocab;
  int64_t new_size;  // -1: all
  int64_t old_size;  // -1: all
};

// The attributes new_vocab, old_vocab, new_size and old_size.
JoinRequest JoinRequestOf(const Attributes& attributes);

// Two vocabularies, joined.
struct Joined {
  JoinResult result;
  int64_t old_lines;  // that count
};

// Rows of the old vocabulary for rows of the new one. Keeps them alive.
struct JoinedIds {
  std::shared_ptr<const Joined> owner;
  std::span<const int64_t> ids;
};

// The ids of new rows [offset, offset + count). A file that was rewritten is read again. Throws
// OpError and VocabularyError as TensorFlow's GenerateVocabRemapping fails.
JoinedIds IdsOf(const JoinRequest& request, int64_t offset, int64_t count);

// What a join comes to, for a look at it before a graph runs: how well the vocabularies fit each
// other, and the table.
struct JoinSummary {
  int64_t new_lines;  // of the file
  int64_t old_lines;  // that count
  int64_t present;    // of the first `count` new lines, how many the old vocabulary has
  int64_t beyond;     // the first of them whose row is not below `table_rows`, or -1
  int64_t row;        // and this row
};
JoinSummary Summarize(const JoinRequest& request, int64_t count, int64_t table_rows);

}  // namespace tensorbundle::op
