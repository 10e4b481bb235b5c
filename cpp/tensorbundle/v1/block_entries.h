// SPDX-License-Identifier: Apache-2.0
// The entries of one block, laid out for lookup.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/arena.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

// Owns the block, unless the table's source does. Immutable.
class BlockEntries {
 public:
  // Reads and verifies the block. Throws CorruptionError when its checksum differs or an entry is
  // malformed or out of order; what the source throws.
  static BlockEntries Read(const Table& table, const BlockHandle& handle);

  // Borrowed from the block.
  std::optional<ByteSpan> Find(std::string_view key) const;

  // Where one of the values lies in the file, or nothing when the block is compressed.
  std::optional<uint64_t> OffsetInFile(ByteSpan value) const;

 private:
  struct Entry {
    std::string_view key;
    ByteSpan value;
  };
  BlockEntries(Block block, const BlockHandle& handle, bool is_plain)
      : block_(std::move(block)), handle_(handle), is_plain_(is_plain) {}
  bool Index();

  Block block_;
  BlockHandle handle_;
  bool is_plain_;
  ByteArena keys_;
  std::vector<Entry> entries_;
};

}  // namespace tensorbundle
