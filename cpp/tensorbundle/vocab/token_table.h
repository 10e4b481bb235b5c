// SPDX-License-Identifier: Apache-2.0
// From a token to its row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tensorbundle/vocab/page_memory.h"
#include "tensorbundle/vocab/slot_line.h"
#include "tensorbundle/vocab/token_hash.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle {

// A hash table over the first rows of a vocabulary: open addressing, eleven bytes per row, no
// copies of tokens. Where a token occurs more than once, its first row counts. Borrows the
// vocabulary. Immutable and thread-safe once made; what it answers is the same for every number of
// threads.
class TokenTable {
 public:
  static constexpr int64_t kAbsent = -1;

  // Takes rows [0, num_rows), by threads. The number of look-ups to come decides how roomy the
  // table is. Throws std::bad_alloc.
  TokenTable(const Vocabulary& vocabulary, uint64_t num_rows, uint64_t num_lookups, int threads,
             TokenHasher hasher = TokenHasher::Random());

  // The first row whose token an earlier row has already, if any.
  std::optional<uint64_t> first_duplicate() const;

  // The row of the token, or kAbsent. It must be a vocabulary's: see Vocabulary::kReadablePadding.
  int64_t Find(std::string_view token) const;

  // Find() of each of the tokens from row `first` of `other` on, into `rows`. Returns how many were
  // found. Many at a time are faster than one by one: they wait for memory together.
  uint64_t FindAll(const Vocabulary& other, uint64_t first, std::span<int64_t> rows) const;

  // The same of as many tokens as rows. Each must be a vocabulary's, or as readable.
  uint64_t FindAll(std::span<const std::string_view> tokens, std::span<int64_t> rows) const;

 private:
  struct Insertion;
  struct Lookup;

  uint64_t InsertRows(uint64_t first, uint64_t count);
  uint64_t InsertBatch(std::span<Insertion> batch);
  bool TryInsert(const Insertion& insertion, uint64_t* duplicate);
  std::optional<uint64_t> MeetEqual(uint64_t* line, uint32_t tagged, uint64_t row, uint64_t tag);

  template <typename TokenAt>
  uint64_t FindEach(const TokenAt& token_at, std::span<int64_t> rows) const;

  // The steps of a look-up.
  void Start(std::string_view token, Lookup* lookup) const;
  void LookIntoLine(Lookup* lookup) const;
  void LookIntoNextLine(Lookup* lookup) const;
  int64_t Confirm(const Lookup& lookup) const;
  void FindCandidate(Lookup* lookup) const;

  uint64_t* LineOf(uint64_t hash) const;
  uint64_t* NextLine(uint64_t* line) const;

  const Vocabulary& vocabulary_;
  TokenHasher hasher_;
  uint64_t num_lines_;
  PageMemory memory_;  // num_lines_ lines
  uint64_t first_duplicate_;
};

}  // namespace tensorbundle
