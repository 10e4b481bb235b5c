// SPDX-License-Identifier: Apache-2.0
// One file of a V1 checkpoint: a table with the meta of its slices under the empty key, and a
// record for each slice under the slice's key.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/table/table.h"
#include "tensorbundle/v1/block_entries.h"

namespace tensorbundle {

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
