// SPDX-License-Identifier: Apache-2.0
// Every entry of a table, one after the other, checked on the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "tensorbundle/base/byte_arena.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/key_budget.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

// Keys strictly ascend. One block is in memory at a time, and all the keys so far.
class EntryCursor {
 public:
  // Starts before the first entry. The table must outlive the cursor, and `keys`, which takes the
  // keys, what is seen of them.
  EntryCursor(const Table& table, ByteArena* keys)
      : table_(table), keys_(*keys), budget_(table.source().size()) {}

  // Moves to the next entry. False at the end. Throws CorruptionError on the first fault: an index
  // with a damaged block would otherwise just list fewer tensors.
  bool Next();

  // As long as the arena.
  std::string_view key() const { return key_; }
  // Until the next call of Next.
  ByteSpan value() const { return value_; }

  // CRC32C of the checksums of the blocks so far. At the end it tells one table from another.
  uint32_t checksum() const { return checksum_; }

 private:
  const BlockIndexEntry& Current() const { return table_.blocks()[num_opened_ - 1]; }
  bool OpenNextBlock();
  void TakeKey(const BlockEntry& entry);
  [[noreturn]] void ThrowBadEntry(const char* what) const;

  const Table& table_;
  ByteArena& keys_;
  KeyBudget budget_;
  size_t num_opened_ = 0;  // of the table's blocks
  size_t ordinal_ = 0;     // of the next entry in its block
  Block block_;
  std::optional<BlockWalker> walker_;
  std::string_view key_;
  ByteSpan value_;
  uint32_t checksum_ = 0;
};

}  // namespace tensorbundle
