// SPDX-License-Identifier: Apache-2.0
// Writes a table as TensorFlow does: uncompressed, in blocks of 256 KiB. From the records of an
// index that TensorFlow wrote it makes the same bytes. docs/format.md, "The table".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/table/format.h"

namespace tensorbundle {

// Entries of one block with their keys prefix-compressed.
class BlockBuilder {
 public:
  explicit BlockBuilder(int restart_interval) : restart_interval_(restart_interval) {}

  // Keys ascend strictly.
  void Add(std::string_view key, std::string_view value);
  bool empty() const { return bytes_.empty(); }
  // Bytes of the block if it ended here.
  uint64_t size() const;

  // The block's bytes, valid until the next call. The builder is then as new.
  std::string Finish();

 private:
  int restart_interval_;
  int since_restart_ = 0;
  std::string bytes_;
  std::string last_key_;
  std::vector<uint32_t> restarts_{0};
};

class TableBuilder {
 public:
  // A data block ends as soon as it has `block_size` bytes.
  explicit TableBuilder(uint64_t block_size = uint64_t{256} << 10, int restart_interval = 16);

  // Keys ascend strictly.
  void Add(std::string_view key, std::string_view value);

  // The whole file. Nothing may be called afterwards.
  std::string Finish();

 private:
  void EndBlock();
  void IndexLastBlock(std::string_view separator);
  BlockHandle Append(std::string block);

  uint64_t block_size_;
  BlockBuilder data_;
  BlockBuilder index_{1};
  BlockHandle last_block_;
  bool last_block_unindexed_ = false;  // its separator depends on the key that follows
  std::string last_key_;
  std::string file_;
};

}  // namespace tensorbundle
