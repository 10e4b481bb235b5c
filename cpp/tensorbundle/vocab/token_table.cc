// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/token_table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <mutex>

#include "tensorbundle/base/parallel.h"

namespace tensorbundle {
namespace {

static_assert(Vocabulary::kMaxSize <= kOffsetMask, "a slot holds every offset");

// Tokens that are hashed before the first of them is inserted. By then, its line is in the cache.
constexpr size_t kRowsPerBatch = 128;

// The number of look-ups between two steps of one look-up, by measurement.
constexpr size_t kDistance = 12;
constexpr size_t kRingSize = 64;  // more than 3 * kDistance

constexpr uint64_t kNone = UINT64_MAX;

// Bytes of slots per token. Tokens that are only looked up have no slots; their share enlarges the
// table, up to the size at which look-ups get no faster.
constexpr uint64_t kBytesPerToken = 11;
constexpr uint64_t kMaxBytesPerRow = 14;

// Returns the number of cache lines of the table. It always has free slots.
uint64_t LinesFor(uint64_t num_rows, uint64_t num_lookups) {
  constexpr uint64_t kLineSize = kSlotsPerLine * sizeof(uint64_t);
  const uint64_t bytes =
      kBytesPerToken * num_rows +
      std::min(kBytesPerToken * num_lookups, (kMaxBytesPerRow - kBytesPerToken) * num_rows);
  return bytes / kLineSize + 1;
}

}  // namespace

// A row that is being inserted.
struct TokenTable::Insertion {
  std::string_view token;
  uint64_t offset;
  uint64_t tag;
  uint64_t* line;
};

// A look-up in the pipeline of FindAll.
struct TokenTable::Lookup {
  Lookup() {}  // initializes nothing, because the steps set every member

  std::string_view token;
  uint64_t hash;
  uint64_t* line;
  uint64_t offset;  // of the first slot of the line that has the tag; 0 if no slot has it
  bool tagged;      // whether a slot has the tag
  bool open;        // whether the token may be in another slot or line
};

TokenTable::TokenTable(const Vocabulary& vocabulary, uint64_t num_rows, uint64_t num_lookups,
                       int threads, TokenHasher hasher)
    : vocabulary_(vocabulary),
      hasher_(hasher),
      num_lines_(LinesFor(num_rows, num_lookups)),
      memory_(num_lines_ * kSlotsPerLine * sizeof(uint64_t)) {
  if (num_rows == 0) return;
  std::mutex mutex;
  uint64_t duplicate = kNone;
  ParallelFor(vocabulary.ChunkOf(num_rows - 1) + 1, threads, [&](size_t chunk) {
    const uint64_t found = InsertChunk(chunk, num_rows);
    const std::lock_guard<std::mutex> lock(mutex);
    duplicate = std::min(duplicate, found);
  });
  if (duplicate != kNone) first_duplicate_ = vocabulary.RowAt(duplicate);
}

std::optional<uint64_t> TokenTable::first_duplicate() const { return first_duplicate_; }

inline uint64_t* TokenTable::LineOf(uint64_t hash) const {
  __extension__ using Wide = unsigned __int128;
  const auto line = static_cast<uint64_t>(static_cast<Wide>(hash) * num_lines_ >> 64);
  return static_cast<uint64_t*>(memory_.data()) + line * kSlotsPerLine;
}

// Returns the line in which a token is stored if `line` is full.
inline uint64_t* TokenTable::NextLine(uint64_t* line) const {
  auto* first = static_cast<uint64_t*>(memory_.data());
  line += kSlotsPerLine;
  return line == first + num_lines_ * kSlotsPerLine ? first : line;
}

// Inserts each row in its line, or in the next lines while that is full. Tries the first line for
// the whole batch before it touches next lines: one row in twenty needs a next line, and its cache
// miss would otherwise not overlap with others. Returns as InsertChunk.
// Requires: the first lines are prefetched.
uint64_t TokenTable::InsertBatch(std::span<Insertion> batch) {
  uint64_t duplicate = kNone;
  std::array<size_t, kRowsPerBatch> open;
  size_t num_open = batch.size();
  for (size_t i = 0; i < num_open; ++i) open[i] = i;
  while (num_open > 0) {
    size_t still_open = 0;
    for (size_t k = 0; k < num_open; ++k) {
      Insertion& insertion = batch[open[k]];
      if (!TryInsert(insertion, &duplicate)) continue;
      insertion.line = NextLine(insertion.line);
      __builtin_prefetch(insertion.line, 1);
      open[still_open++] = open[k];
    }
    num_open = still_open;
  }
  return duplicate;
}

// Inserts the rows of a chunk that are below `num_rows`. Returns the smallest offset of a token
// that has an earlier occurrence, as far as this call found out, or kNone.
uint64_t TokenTable::InsertChunk(size_t chunk, uint64_t num_rows) {
  uint64_t duplicate = kNone;
  std::array<Insertion, kRowsPerBatch> batch;
  size_t n = 0;
  const auto insert = [&] {
    duplicate = std::min(duplicate, InsertBatch(std::span(batch).first(n)));
    n = 0;
  };
  vocabulary_.ForEachIn(chunk, [&](uint64_t row, uint64_t offset, std::string_view token) {
    if (row >= num_rows) return false;
    const uint64_t hash = hasher_(token);
    batch[n] = {token, offset, TagOf(hash), LineOf(hash)};
    __builtin_prefetch(batch[n].line, 1);
    if (++n == kRowsPerBatch) insert();
    return true;
  });
  insert();
  return duplicate;
}

// Stores the smallest offset of the token in the line. Returns true if the line is full of other
// tokens. If the token was there before, the larger of both offsets is a duplicate: in any order of
// insertion, each occurrence but the first is reported once.
bool TokenTable::TryInsert(const Insertion& insertion, uint64_t* duplicate) {
  for (;;) {
    const LineMatch match = MatchLine(insertion.line, insertion.tag);
    if (match.tagged != 0) {
      const std::optional<uint64_t> larger = UpdateEqual(insertion, match.tagged);
      if (larger) {
        *duplicate = std::min(*duplicate, *larger);
        return false;
      }
    }
    if (match.free == 0) return true;
    uint64_t* slot = insertion.line + std::countr_zero(match.free);
    if (ReplaceSlot(slot, 0, MakeSlot(insertion.tag, insertion.offset))) return false;
    // Another thread has changed the line, possibly for the same token.
  }
}

// If one of the tagged slots has the token, stores the smaller offset in it and returns the larger
// one.
std::optional<uint64_t> TokenTable::UpdateEqual(const Insertion& insertion, uint32_t tagged) {
  const uint64_t offset = insertion.offset;
  for (; tagged != 0; tagged &= tagged - 1) {
    uint64_t* slot = insertion.line + std::countr_zero(tagged);
    uint64_t seen = LoadSlot(slot);
    if (!SameToken(vocabulary_.TokenAt(OffsetOf(seen)), insertion.token)) continue;
    while (offset < OffsetOf(seen) && !ReplaceSlot(slot, seen, MakeSlot(insertion.tag, offset))) {
      seen = LoadSlot(slot);
    }
    return std::max(offset, OffsetOf(seen));
  }
  return std::nullopt;
}

int64_t TokenTable::Find(std::string_view token) const {
  const uint64_t hash = hasher_(token);
  for (uint64_t* line = LineOf(hash);; line = NextLine(line)) {
    const LineMatch match = MatchLine(line, TagOf(hash));
    for (uint32_t tagged = match.tagged; tagged != 0; tagged &= tagged - 1) {
      const uint64_t offset = OffsetOf(LoadSlot(line + std::countr_zero(tagged)));
      if (SameToken(vocabulary_.TokenAt(offset), token)) return RowAt(offset);
    }
    if (match.free != 0) return kAbsent;
  }
}

inline int64_t TokenTable::RowAt(uint64_t offset) const {
  return static_cast<int64_t>(vocabulary_.RowAt(offset));
}

// Sets `tagged`, `offset` and `open` from the line. The offset of an absent token is 0, which
// avoids a branch.
inline void TokenTable::FindCandidate(Lookup* lookup) const {
  const LineMatch match = MatchLine(lookup->line, TagOf(lookup->hash));
  const uint32_t tagged = match.tagged;
  const uint64_t offset =
      OffsetOf(LoadSlot(lookup->line + (std::countr_zero(tagged) & (kSlotsPerLine - 1))));
  lookup->tagged = tagged != 0;
  lookup->offset = lookup->tagged ? offset : 0;
  lookup->open = match.free == 0 || (tagged & (tagged - 1)) != 0;
}

inline void TokenTable::Start(std::string_view token, Lookup* lookup) const {
  lookup->token = token;
  lookup->hash = hasher_(token);
  lookup->line = LineOf(lookup->hash);
  __builtin_prefetch(lookup->line);
}

inline void TokenTable::LookIntoLine(Lookup* lookup) const {
  FindCandidate(lookup);
  if (lookup->tagged || !lookup->open) {
    vocabulary_.Prefetch(lookup->offset);
  } else {
    lookup->line = NextLine(lookup->line);
    __builtin_prefetch(lookup->line);
  }
}

inline void TokenTable::LookIntoNextLine(Lookup* lookup) const {
  if (lookup->tagged || !lookup->open) return;
  FindCandidate(lookup);
  vocabulary_.Prefetch(lookup->offset);
}

// Compares the bytes. Look-ups that are still open are rare; they start again with Find().
inline int64_t TokenTable::Confirm(const Lookup& lookup) const {
  const bool same = lookup.tagged & SameToken(vocabulary_.TokenAt(lookup.offset), lookup.token);
  if (!same & lookup.open) return Find(lookup.token);
  return same ? RowAt(lookup.offset) : kAbsent;
}

// A software pipeline. A look-up touches one or two lines of the table, then the token and its line
// count: each address depends on the access before it, and each access is a cache miss. So the
// steps of look-ups are interleaved, kDistance apart, to overlap the misses of some with the
// computation of others.
template <typename Row>
uint64_t TokenTable::FindAll(std::span<const std::string_view> tokens, std::span<Row> rows) const {
  if (vocabulary_.size() == 0) {
    std::fill(rows.begin(), rows.end(), static_cast<Row>(kAbsent));
    return 0;
  }
  std::array<Lookup, kRingSize> ring;
  static_assert(kRingSize > 3 * kDistance);
  const size_t n = rows.size();
  uint64_t found = 0;
  for (size_t step = 0; step < n + 3 * kDistance; ++step) {
    // The look-up that is `distance` steps behind, or null before the first and after the last one.
    const auto behind = [&](size_t distance) {
      return step - distance < n ? &ring[(step - distance) % kRingSize] : nullptr;
    };
    if (Lookup* lookup = behind(0)) Start(tokens[step], lookup);
    if (Lookup* lookup = behind(kDistance)) LookIntoLine(lookup);
    if (Lookup* lookup = behind(2 * kDistance)) LookIntoNextLine(lookup);
    if (Lookup* lookup = behind(3 * kDistance)) {
      const int64_t row = Confirm(*lookup);
      rows[step - 3 * kDistance] = static_cast<Row>(row);
      found += row != kAbsent;
    }
  }
  return found;
}

template uint64_t TokenTable::FindAll(std::span<const std::string_view>, std::span<int32_t>) const;
template uint64_t TokenTable::FindAll(std::span<const std::string_view>, std::span<int64_t>) const;

}  // namespace tensorbundle
