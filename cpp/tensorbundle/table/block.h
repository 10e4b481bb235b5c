// SPDX-License-Identifier: Apache-2.0
// One block of a LevelDB table:
//
//   entry*  |  fixed32 restart[0..n)  |  fixed32 n
//   entry = varint32 shared, varint32 non_shared, varint32 value_size, key_delta[non_shared],
//   value[value_size]
//
// The key of an entry is the first `shared` bytes of the key before it, then key_delta. A restart
// is the offset of an entry that shares nothing.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensorbundle/base/arena.h"
#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Bounds the size of the keys that a file of a given size may expand to. Prefix compression lets an
// entry of a few bytes repeat a key of any length, and Snappy packs hundreds of empty entries into
// a few bytes: without a limit, a file of 256 KiB could request gigabytes. Real checkpoints expand
// less than tenfold (keys of an object graph have 150 bytes, their entries 25).
class ExpansionLimit {
 public:
  explicit ExpansionLimit(uint64_t file_size) : left_(kSlack + kMaxExpansion * file_size) {}

  // Counts a key of `size` bytes. Returns false if that exceeds the limit.
  bool Add(uint64_t size) {
    if (left_ < kEntryCost || size > left_ - kEntryCost) return false;
    left_ -= kEntryCost + size;
    return true;
  }

 private:
  static constexpr uint64_t kMaxExpansion = 32;
  // Memory of one entry. A stored entry has at least 4 bytes.
  static constexpr uint64_t kEntryCost = 128;
  static constexpr uint64_t kSlack = uint64_t{1} << 20;
  uint64_t left_;
};

// The three lengths in front of an entry.
struct EntryHeader {
  uint32_t shared = 0;
  uint32_t non_shared = 0;
  uint32_t value_size = 0;

  // In 64 bits, because the sum of 32 bits can wrap.
  uint64_t key_size() const { return uint64_t{shared} + non_shared; }
  uint64_t data_size() const { return uint64_t{non_shared} + value_size; }
};

// Returns the end of the header, or null if it is malformed.
const uint8_t* DecodeEntryHeader(const uint8_t* p, const uint8_t* limit, EntryHeader* header);

// Whether a key may follow `previous_key`: that has the shared prefix, and `limit` allows the key.
// Counts the key.
inline bool IsAllowedKey(const EntryHeader& header, std::string_view previous_key,
                         ExpansionLimit* limit) {
  return header.shared <= previous_key.size() && limit->Add(header.key_size());
}

// Iterates over the entries of blocks, one block after another.
class BlockIterator {
 public:
  enum class Error : uint8_t {
    kNone,
    kRestarts,   // the restart array does not fit the block, is not ascending, or has no restart 0
    kEntry,      // an entry leaves the block, or disagrees with the restart array
    kPrefix,     // a key shares more bytes than the key before it has
    kOrder,      // keys do not ascend strictly
    kExpansion,  // the keys exceed the limit
  };

  // Stores the keys in `keys`. Lifetime: both arguments must outlive the iterator.
  BlockIterator(ByteArena* keys, ExpansionLimit* limit) : keys_(*keys), limit_(*limit) {}

  // Moves before the first entry of a block. Sets error() to kRestarts or kNone.
  // Lifetime: the block must outlive its iteration.
  void Open(ByteSpan block);

  // Moves to the next entry. Returns false at the end of the block and at the first error.
  bool Next();

  // The current entry. Lifetime: the key as the arena, the value as the block.
  std::string_view key() const { return key_; }
  ByteSpan value() const { return value_; }

  Error error() const { return error_; }
  // The number of entries of this block that were read.
  uint64_t count() const { return count_; }

 private:
  bool Fail(Error error);
  bool MatchesRestarts(uint64_t position, uint32_t shared);

  ByteArena& keys_;
  ExpansionLimit& limit_;
  const uint8_t* begin_ = nullptr;
  const uint8_t* cursor_ = nullptr;
  const uint8_t* restarts_ = nullptr;  // the entries end here
  uint32_t num_restarts_ = 0;
  uint32_t next_restart_ = 0;
  uint64_t count_ = 0;
  Error error_ = Error::kNone;
  std::string_view key_;
  ByteSpan value_;
};

// Returns the predicate of a message about an entry: "is out of order".
// Requires: `error` is not kNone.
const char* Describe(BlockIterator::Error error);

}  // namespace tensorbundle
