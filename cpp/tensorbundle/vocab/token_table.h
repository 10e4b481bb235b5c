// SPDX-License-Identifier: Apache-2.0
// From a token to its row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "tensorbundle/vocab/page_memory.h"
#include "tensorbundle/vocab/token_hash.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle {

// A hash table over the first rows of a vocabulary: open addressing, eleven bytes per row or
// more, no copies of tokens. Where a token occurs more than once, its first row counts. Borrows the
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

  // Find() of each token, into `rows`, of which there are as many. Returns how many were found.
  // Many at a time are faster than one by one: they wait for memory together.
  uint64_t FindAll(std::span<const std::string_view> tokens, std::span<int64_t> rows) const;

 private:
  struct Insertion;
  struct Lookup;

  uint64_t InsertChunk(size_t chunk, uint64_t num_rows);
  uint64_t InsertBatch(std::span<Insertion> batch);
  bool TryInsert(const Insertion& insertion, uint64_t* duplicate);
  std::optional<uint64_t> MeetEqual(const Insertion& insertion, uint32_t tagged);

  // The steps of a look-up.
  void Start(std::string_view token, Lookup* lookup) const;
  void LookIntoLine(Lookup* lookup) const;
  void LookIntoNextLine(Lookup* lookup) const;
  int64_t Confirm(const Lookup& lookup) const;
  void FindCandidate(Lookup* lookup) const;

  int64_t RowAt(uint64_t place) const;
  uint64_t* LineOf(uint64_t hash) const;
  uint64_t* NextLine(uint64_t* line) const;

  const Vocabulary& vocabulary_;
  TokenHasher hasher_;
  uint64_t num_lines_;
  PageMemory memory_;  // num_lines_ lines
  std::optional<uint64_t> first_duplicate_;
};

}  // namespace tensorbundle
