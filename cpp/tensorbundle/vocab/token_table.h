// SPDX-License-Identifier: Apache-2.0
// A hash table from tokens to rows: open addressing over cache lines of eight slots, built by
// threads without locks, probed in a software pipeline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/vocab/token_hash.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle {

// The table of the first rows of a vocabulary: at least eleven bytes per row, no copies of tokens.
// If a token occurs more than once, its first row is used. The results do not depend on the number
// of threads.
// Lifetime: borrows the vocabulary. Threads: immutable and thread-safe.
class TokenTable {
 public:
  static constexpr int64_t kAbsent = -1;

  // Inserts rows [0, num_rows). `num_lookups` is the expected number of look-ups; the more, the
  // larger the table. Throws: std::bad_alloc.
  TokenTable(const Vocabulary& vocabulary, uint64_t num_rows, uint64_t num_lookups, int threads,
             TokenHasher hasher = TokenHasher::Random());

  // The first row whose token also occurs in an earlier row, if any.
  std::optional<uint64_t> first_duplicate() const;

  // Returns the row of the token, or kAbsent.
  // Requires: Vocabulary::kReadablePadding readable bytes follow the token.
  int64_t Find(std::string_view token) const;

  // Stores Find() of each token in `rows`. Returns the number of tokens that were found. Faster
  // than single look-ups, because the cache misses of a batch overlap. Requires: rows.size() ==
  // tokens.size(); `Row` is int32_t or int64_t, and holds every row of the vocabulary.
  template <typename Row>
  uint64_t FindAll(std::span<const std::string_view> tokens, std::span<Row> rows) const;

 private:
  struct Insertion;
  struct Lookup;

  uint64_t InsertChunk(size_t chunk, uint64_t num_rows);
  uint64_t InsertBatch(std::span<Insertion> batch);
  bool TryInsert(const Insertion& insertion, uint64_t* duplicate);
  std::optional<uint64_t> UpdateEqual(const Insertion& insertion, uint32_t tagged);

  // The steps of a look-up.
  void Start(std::string_view token, Lookup* lookup) const;
  void LookIntoLine(Lookup* lookup) const;
  void LookIntoNextLine(Lookup* lookup) const;
  int64_t Confirm(const Lookup& lookup) const;
  void FindCandidate(Lookup* lookup) const;

  int64_t RowAt(uint64_t offset) const;
  uint64_t* LineOf(uint64_t hash) const;
  uint64_t* NextLine(uint64_t* line) const;

  const Vocabulary& vocabulary_;
  TokenHasher hasher_;
  uint64_t num_lines_;
  HugePageBuffer memory_;  // num_lines_ lines
  std::optional<uint64_t> first_duplicate_;
};

}  // namespace tensorbundle
