// SPDX-License-Identifier: Apache-2.0
// An immutable sorted table of byte strings, as LevelDB lays it out. Knows no tensors.
//
// Layout and checks: docs/format.md, "The table".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/table/format.h"

namespace tensorbundle {

// A verified, uncompressed block and whatever memory it needed.
class Block {
 public:
  Block() = default;
  // `bytes` lie in `memory` or in the table's source.
  Block(ByteSpan bytes, std::vector<uint8_t> memory, uint32_t checksum)
      : memory_(std::move(memory)), bytes_(bytes), checksum_(checksum) {}
  Block(Block&&) = default;
  Block& operator=(Block&&) = default;

  // Valid as long as this block and, when nothing had to be copied, the source.
  ByteSpan bytes() const { return bytes_; }
  // CRC32C of the block as it is stored.
  uint32_t checksum() const { return checksum_; }

  // Gives the memory away, for another block.
  std::vector<uint8_t> TakeMemory() && { return std::move(memory_); }

 private:
  std::vector<uint8_t> memory_;  // moving a vector keeps its memory where it is
  ByteSpan bytes_;
  uint32_t checksum_ = 0;
};

// One entry of the index block: every key of the data block is <= separator, every later key is
// greater.
struct BlockIndexEntry {
  std::string separator;
  BlockHandle handle;
};

class Table {
 public:
  // Reads and checks footer, metaindex block and index block, and that the data blocks lie in
  // ascending order, apart from each other, before the metaindex. Reads no data block. Throws
  // CorruptionError; what the source throws.
  static Table Open(std::shared_ptr<const ByteSource> source);

  const ByteSource& source() const { return *source_; }
  const std::vector<BlockIndexEntry>& blocks() const { return blocks_; }

  // Reads a block, compares its checksum, decompresses it. Into the memory of `used`, which nobody
  // looks at any more, when it needs any. Thread-safe. Throws CorruptionError.
  Block ReadBlock(const BlockHandle& handle, Block used = {}) const;

  // The block that would hold `key`, or null when every key is smaller.
  const BlockIndexEntry* FindBlock(std::string_view key) const;

 private:
  Table(std::shared_ptr<const ByteSource> source, Footer footer)
      : source_(std::move(source)), footer_(footer) {}
  void ReadBlockIndex();

  std::shared_ptr<const ByteSource> source_;
  Footer footer_;
  std::vector<BlockIndexEntry> blocks_;
};

}  // namespace tensorbundle
