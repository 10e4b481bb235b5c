// SPDX-License-Identifier: Apache-2.0
// One file of a V1 checkpoint, a table:
//
//   "" -> SavedTensorSlices with the meta: the tensors and slices of this file
//   slice key -> SavedTensorSlices with the slice      (once per slice)
//
// BlockEntries looks up records in a block in memory. EntryScanner finds them in a block in the
// file, which may have gigabytes, by reading little more than the heads of its entries.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/arena.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/format.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

// The entries of one block, indexed for look-up. Owns the block, unless the source of the table
// does. Threads: immutable and thread-safe.
class BlockEntries {
 public:
  // Reads and verifies the block. Throws: CorruptionError if its checksum differs or an entry is
  // malformed or out of order; IOFailure.
  static BlockEntries Read(const Table& table, const BlockHandle& handle);

  // Returns the value of `key`, or nothing. Lifetime: borrowed from the block.
  std::optional<ByteSpan> Find(std::string_view key) const;

  // Returns the offset of a value in the file, or nothing if the block is compressed.
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

// A buffered reader: reads ahead while the requests are sequential, and little after a jump.
class ReadWindow {
 public:
  explicit ReadWindow(const ByteSource& source) : source_(source) {}

  // Returns at least `size` bytes that start at `offset`, or fewer if `limit` comes first.
  // Requires: offset <= limit <= size of the source. Lifetime: valid until the next call.
  ByteSpan At(uint64_t offset, uint64_t size, uint64_t limit);

 private:
  const ByteSource& source_;
  uint64_t next_size_ = 0;  // the size of the last read
  uint64_t begin_ = 0;
  ByteSpan bytes_;
  std::vector<uint8_t> scratch_;
};

// Iterates over the entries of a block in a file. Compares no checksum: its results only tell where
// to read. All offsets are inside the block.
class EntryScanner {
 public:
  // Returns nothing if the block is compressed or malformed. The window may have been used before.
  // Requires: the block is inside the source. Lifetime: the window must outlive the scanner.
  static std::optional<EntryScanner> Open(const BlockHandle& handle, ReadWindow* window);

  // Moves to the next entry. Returns false at the end and if an entry is malformed.
  bool Next();

  // The current entry.
  std::string_view key() const { return key_; }
  uint64_t value_offset() const { return value_offset_; }
  uint64_t value_size() const { return value_size_; }
  // Returns the first `size` bytes of the value, or all of it if it is shorter. Lifetime: valid
  // until the next call of any member.
  ByteSpan ValueHead(uint64_t size);

 private:
  EntryScanner(uint64_t begin, uint64_t end, ReadWindow* window)
      : window_(window), next_entry_(begin), end_(end), limit_(end - begin) {}

  ReadWindow* window_;
  uint64_t next_entry_;
  uint64_t end_;  // the end of the entries, where the restart array begins
  ExpansionLimit limit_;
  std::string key_;
  uint64_t value_offset_ = 0;
  uint64_t value_size_ = 0;
};

// Bytes of a block whose checksum was computed while they were read.
struct ReadBytes {
  uint64_t offset = 0;  // in the file
  uint64_t size = 0;
  uint32_t crc = 0;
};

// A meta and the block that contains it, or the beginning of a large block.
struct StoredMeta {
  Block block;
  ByteSpan message;  // SavedTensorSliceMeta; borrowed from the block
};

// A record and the block that contains it.
struct StoredRecord {
  std::shared_ptr<const BlockEntries> block;
  ByteSpan value;  // SavedTensorSlices; borrowed from the block
};

// An open shard. Caches the last small block. Reads through the page cache in every mode, because
// what it reads is small or has to be decoded. Threads: thread-safe.
class V1Shard {
 public:
  // Reads the footer and the index block of the table. Throws as Table::Open, and what `opener`
  // throws.
  static V1Shard Open(const std::string& path, const FileOpener& opener = nullptr);

  const std::string& path() const { return file_->path(); }
  const File& file() const { return *file_; }
  const Table& table() const { return table_; }

  // Reads the block that begins with the meta. Throws: CorruptionError if it is missing, or if the
  // table is the index of a V2 checkpoint; IOFailure.
  StoredMeta ReadMeta() const;

  // Finds the record of `key`. Returns nothing if it does not exist. Reads the block that would
  // hold it, unless that is cached: thousands of small tensors may share a block. Throws:
  // CorruptionError if the block is corrupted; IOFailure.
  std::optional<StoredRecord> ReadRecord(std::string_view key) const;

  // Whether blocks of this size are cached.
  static bool IsSmall(const BlockHandle& handle);

  // Discards the cached block, so that the next record is read from the file.
  void Forget() const;

  // Compares the checksum of a block, with constant memory. Does not read the bytes `known`.
  // Requires: they are inside the block. Throws: CorruptionError if it differs; IOFailure.
  void VerifyBlock(const BlockHandle& handle, const ReadBytes& known) const;

  // Extends `crc` by the stored checksums of all data blocks: the result differs between saves.
  // Reads five bytes per block.
  uint32_t ExtendWithChecksums(uint32_t crc) const;

 private:
  // Guarded by ForkLock.
  struct LastBlock {
    uint64_t offset = 0;
    std::shared_ptr<const BlockEntries> entries;  // null if no block is cached
  };

  V1Shard(std::shared_ptr<const File> file, Table table)
      : file_(std::move(file)), table_(std::move(table)), last_(std::make_unique<LastBlock>()) {}
  std::shared_ptr<const BlockEntries> ReadEntries(const BlockHandle& handle) const;
  struct FirstEntry {
    Block block;  // or the beginning of the block, up to the end of the entry
    std::string key;
    ByteSpan value;
  };
  FirstEntry ReadFirstEntry(const BlockHandle& handle) const;
  std::optional<FirstEntry> ReadFirstEntryOnly(const BlockHandle& handle) const;

  std::shared_ptr<const File> file_;
  Table table_;
  std::unique_ptr<LastBlock> last_;
};

}  // namespace tensorbundle
