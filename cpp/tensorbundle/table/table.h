// SPDX-License-Identifier: Apache-2.0
// An immutable sorted table of byte strings, as LevelDB lays it out:
//
//   [data block] ... [metaindex block] [index block] [footer]
//
// The index block has an entry for each data block: a separator key, and the block's place.
// docs/format.md, "The table", has all checks.
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

// A block that was compared with its checksum and decompressed, with the memory that this needed.
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

  // Releases the memory for another block.
  std::vector<uint8_t> TakeMemory() && { return std::move(memory_); }

 private:
  std::vector<uint8_t> memory_;  // moving a vector keeps its memory where it is
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
  // Reads and checks footer, metaindex block and index block. The data blocks must be in ascending
  // order without overlaps, before the metaindex block; they are not read.
  // Throws CorruptionError; IOFailure from the source.
  static Table Open(std::shared_ptr<const ByteSource> source);

  const ByteSource& source() const { return *source_; }
  const std::vector<BlockIndexEntry>& blocks() const { return blocks_; }

  // Reads a block, compares its checksum, and decompresses it. Reuses the memory of `used`.
  // Throws CorruptionError; IOFailure from the source. Threads: any number.
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

// Iterates over all entries of a table. Keys ascend strictly, and are checked against the
// separators. Holds one block at a time in memory, and all keys.
class TableIterator {
 public:
  // Keys are stored in `keys`. Both arguments must outlive the iterator.
  TableIterator(const Table& table, ByteArena* keys)
      : table_(table), limit_(table.source().size()), entries_(keys, &limit_) {}

  // Moves to the next entry; false at the end. Throws CorruptionError at the first error, because
  // an index with a damaged block would otherwise list fewer tensors; IOFailure from the source.
  bool Next();

  // Of the current entry. The key is valid as long as the arena, the value until the next call of
  // Next().
  std::string_view key() const { return entries_.key(); }
  ByteSpan value() const { return entries_.value(); }

  // CRC32C of the checksums of the blocks that were read. At the end it identifies the table's
  // contents.
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
  // Throws as TableIterator: CorruptionError, IOFailure.
  static TableEntries ReadAll(const Table& table);

  size_t size() const { return entries_.size(); }
  std::string_view key(size_t i) const { return entries_[i].key; }
  ByteSpan value(size_t i) const { return AsBytes(entries_[i].value); }

  // The index of `key`, or size().
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
