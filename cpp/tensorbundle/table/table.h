// SPDX-License-Identifier: Apache-2.0
// A LevelDB table, an immutable sorted map of byte strings:
//
//   [data block] ... [metaindex block] [index block] [footer]
//
// The index block has an entry for each data block: a separator key and the handle of the block.
// docs/format.md, "The table".
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/arena.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/format.h"

namespace tensorbundle {

// A verified, decompressed block. Owns the memory of its bytes, unless the source does.
class Block {
 public:
  Block() = default;
  // `bytes` are in `memory` or in the source of the table.
  Block(ByteSpan bytes, std::vector<uint8_t> memory, uint32_t checksum)
      : memory_(std::move(memory)), bytes_(bytes), checksum_(checksum) {}
  Block(Block&&) = default;
  Block& operator=(Block&&) = default;

  // Lifetime: as this block and as the source of the table.
  ByteSpan bytes() const { return bytes_; }
  // The CRC32C of the stored bytes.
  uint32_t checksum() const { return checksum_; }

  // Releases the memory for another block.
  std::vector<uint8_t> TakeMemory() && { return std::move(memory_); }

 private:
  std::vector<uint8_t> memory_;  // a move does not change its address
  ByteSpan bytes_;
  uint32_t checksum_ = 0;
};

// One entry of the index block. Every key of the data block is <= separator, every later key is
// greater.
struct BlockIndexEntry {
  std::string separator;
  BlockHandle handle;
};

class Table {
 public:
  // Reads and checks the footer, the metaindex block and the index block. Does not read the data
  // blocks, but checks that they are in ascending order, disjoint, and before the metaindex block.
  // Throws: CorruptionError; IOFailure.
  static Table Open(std::shared_ptr<const ByteSource> source);

  const ByteSource& source() const { return *source_; }
  const std::vector<BlockIndexEntry>& blocks() const { return blocks_; }

  // Reads a block, compares its checksum, and decompresses it. Reuses the memory of `used`.
  // Throws: CorruptionError; IOFailure. Threads: any number.
  Block ReadBlock(const BlockHandle& handle, Block used = {}) const;

  // Returns the block that holds `key` if any block does, or null if every key is smaller.
  const BlockIndexEntry* FindBlock(std::string_view key) const;

 private:
  Table(std::shared_ptr<const ByteSource> source, Footer footer)
      : source_(std::move(source)), footer_(footer) {}
  void ReadBlockIndex();

  std::shared_ptr<const ByteSource> source_;
  Footer footer_;
  std::vector<BlockIndexEntry> blocks_;
};

// Iterates over all entries of a table. Checks that keys ascend strictly and agree with the
// separators. Memory: one block and all keys.
class TableIterator {
 public:
  // Stores the keys in `keys`. Lifetime: both arguments must outlive the iterator.
  TableIterator(const Table& table, ByteArena* keys)
      : table_(table), limit_(table.source().size()), entries_(keys, &limit_) {}

  // Moves to the next entry. Returns false at the end.
  // Throws: CorruptionError at the first error, because an index with a corrupted block would
  // otherwise list fewer tensors; IOFailure.
  bool Next();

  // The current entry. Lifetime: the key as the arena, the value until the next call of Next().
  std::string_view key() const { return entries_.key(); }
  ByteSpan value() const { return entries_.value(); }

  // The CRC32C of the checksums of the blocks that were read. At the end of the table it identifies
  // the contents of the table.
  uint32_t checksum() const { return checksum_; }

 private:
  bool OpenNextBlock();
  void CheckEndOfBlock() const;
  [[noreturn]] void ThrowBadEntry(uint64_t entry, const char* what) const;

  const Table& table_;
  ExpansionLimit limit_;
  size_t num_opened_ = 0;  // blocks
  Block block_;
  BlockIterator entries_;
  uint32_t checksum_ = 0;
};

// All entries of a table in memory.
class TableEntries {
 public:
  // Throws: CorruptionError; IOFailure.
  static TableEntries ReadAll(const Table& table);

  size_t size() const { return entries_.size(); }
  std::string_view key(size_t i) const { return entries_[i].key; }
  ByteSpan value(size_t i) const { return AsBytes(entries_[i].value); }

  // Returns the index of `key`, or size() if it is absent.
  size_t Find(std::string_view key) const;

 private:
  struct Entry {
    std::string_view key;
    std::string_view value;
  };
  ByteArena bytes_;
  std::vector<Entry> entries_;
};

}  // namespace tensorbundle
