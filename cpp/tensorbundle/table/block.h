// SPDX-License-Identifier: Apache-2.0
// One block of a table: prefix-compressed entries and the restart array behind them.
//
//   entry*  |  fixed32 restart[0..n)  |  fixed32 n
//   entry = varint32 shared, varint32 non_shared, varint32 value_size, key_delta[non_shared],
//   value[value_size]
#pragma once

#include <cstdint>
#include <optional>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// One entry, its key still as a difference to the key before it.
struct BlockEntry {
  uint32_t shared = 0;  // bytes taken over from the previous key
  ByteSpan key_delta;
  ByteSpan value;
};

// Walks the entries of a block. The block bytes must outlive the walker and what it hands out.
class BlockWalker {
 public:
  // Nothing when the restart array does not fit the block or is not one: at least one restart, the
  // first at 0, strictly ascending, all before the array.
  static std::optional<BlockWalker> Open(ByteSpan block);

  // Moves to the next entry. False at the end and at the first malformed entry: `ok()` tells which.
  // An entry is malformed also when a restart points into it or when it has a restart but shares a
  // prefix.
  bool Next(BlockEntry* entry);
  bool ok() const { return ok_; }

 private:
  BlockWalker(ByteSpan block, const uint8_t* restarts, uint32_t num_restarts)
      : begin_(block.data()), cursor_(begin_), restarts_(restarts), num_restarts_(num_restarts) {}
  bool CheckRestart(uint64_t position, uint32_t shared);

  const uint8_t* begin_;
  const uint8_t* cursor_;
  const uint8_t* restarts_;  // the entries end here
  uint32_t num_restarts_;
  uint32_t next_restart_ = 0;
  bool ok_ = true;
};

}  // namespace tensorbundle
