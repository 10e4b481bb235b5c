// SPDX-License-Identifier: Apache-2.0
// The entries of one block, laid out for lookup.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
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

// Walks a block in a file by reading little more than the heads of its entries.

// Reads ahead as long as it is asked for bytes in sequence, and little after a jump.
class ReadWindow {
 public:
  explicit ReadWindow(const ByteSource& source) : source_(source) {}

  // `size` bytes from `offset` on, and what more of [offset, limit) is at hand; fewer when the
  // limit comes first. `offset` <= `limit` <= the source's size. Borrowed until the next call.
  ByteSpan At(uint64_t offset, uint64_t size, uint64_t limit);

 private:
  const ByteSource& source_;
  uint64_t next_size_ = 0;  // of the last read
  uint64_t begin_ = 0;
  ByteSpan bytes_;
  std::vector<uint8_t> scratch_;
};

// Nothing it says has been held against a checksum: it is good for finding out where to look, no
// more. Every place it names lies inside the block.
class EntryScanner {
 public:
  // Nothing when the block is compressed or cannot be a block. `handle` must fit the source. The
  // window may have been used before; it must outlive the scanner.
  static std::optional<EntryScanner> Open(const BlockHandle& handle, ReadWindow* window);

  // Moves to the next entry. False at the end, and when an entry makes no sense.
  bool Next();

  // Of the current entry.
  std::string_view key() const { return key_; }
  uint64_t value_offset() const { return value_offset_; }
  uint64_t value_size() const { return value_size_; }
  // The first `size` bytes of the value; fewer when it is shorter. Borrowed until the next call of
  // anything.
  ByteSpan ValueHead(uint64_t size);

 private:
  EntryScanner(uint64_t begin, uint64_t end, ReadWindow* window)
      : window_(window), next_entry_(begin), end_(end), limit_(end - begin) {}

  ReadWindow* window_;
  uint64_t next_entry_;
  uint64_t end_;  // of the entries: the restart array begins here
  ExpansionLimit limit_;
  std::string key_;
  uint64_t value_offset_ = 0;
  uint64_t value_size_ = 0;
};

// One file of a V1 checkpoint: a table with the meta of its slices under the empty key, and a
// record for each slice under the slice's key.

// The meta and the block that it lies in.
struct StoredMeta {
  Block block;
  ByteSpan message;  // SavedTensorSliceMeta; borrowed from the block
};

// A record and the block that it lies in.
struct StoredRecord {
  std::shared_ptr<const BlockEntries> block;
  ByteSpan value;  // SavedTensorSlices; borrowed from the block
};

// Immutable, but for the last small block that it keeps, and thread-safe. Reads through the page
// cache in every mode: what is read here is small, or must be decoded anyway.
class V1Shard {
 public:
  // Reads the parts of the table that are no data. Throws as File::Open and Table::Open.
  static V1Shard Open(const std::string& path);

  const std::string& path() const { return file_->path(); }
  const File& file() const { return *file_; }
  const Table& table() const { return table_; }

  // Reads the block that begins with the meta. Throws CorruptionError when there is none, or when
  // the table is the index of a V2 checkpoint.
  StoredMeta ReadMeta() const;

  // Finds the value of `key` in the block that would hold it. Nothing when it is not there. Reads
  // the block, unless it is the last small one that was read: thousands of small tensors may share
  // it. Throws CorruptionError when the block is damaged.
  std::optional<StoredRecord> ReadRecord(std::string_view key) const;

  // Whether blocks of this size are kept.
  static bool IsSmall(const BlockHandle& handle);

  // Drops the block that is kept: the next record is read from the file.
  void Forget() const;

  // Compares the checksum of a block, without keeping the block. Throws CorruptionError when it
  // differs.
  void VerifyBlock(const BlockHandle& handle) const;

  // The CRC32C of the stored checksums of all data blocks, as a continuation of `crc`: it tells one
  // save from the next, and reads five bytes per block.
  uint32_t ExtendWithChecksums(uint32_t crc) const;

 private:
  struct LastBlock {
    std::mutex mutex;
    uint64_t offset = 0;
    std::shared_ptr<const BlockEntries> entries;  // null: none
  };

  V1Shard(std::shared_ptr<const File> file, Table table)
      : file_(std::move(file)), table_(std::move(table)), last_(std::make_unique<LastBlock>()) {}
  std::shared_ptr<const BlockEntries> ReadEntries(const BlockHandle& handle) const;

  std::shared_ptr<const File> file_;
  Table table_;
  std::unique_ptr<LastBlock> last_;
};

}  // namespace tensorbundle
