// SPDX-License-Identifier: Apache-2.0
// A builder of tables in TensorFlow's layout: uncompressed, in blocks of 256 KiB. The records of an
// index that TensorFlow wrote give the same bytes. docs/format.md, "The table".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/table/format.h"

namespace tensorbundle {

// Builds one block with prefix-compressed keys.
class BlockBuilder {
 public:
  explicit BlockBuilder(int restart_interval) : restart_interval_(restart_interval) {}

  // Requires: keys ascend strictly.
  void Add(std::string_view key, std::string_view value);
  bool empty() const { return bytes_.empty(); }
  // The size of the block if it ended here.
  uint64_t size() const;

  // Returns the bytes of the block and resets the builder.
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
  // Ends a data block as soon as it has `block_size` bytes.
  explicit TableBuilder(uint64_t block_size = uint64_t{256} << 10, int restart_interval = 16);

  // Requires: keys ascend strictly.
  void Add(std::string_view key, std::string_view value);

  // Returns the whole file. Requires: no other call follows.
  std::string Finish();

 private:
  void EndBlock();
  void IndexLastBlock(std::string_view separator);
  BlockHandle Append(std::string block);

  uint64_t block_size_;
  BlockBuilder data_;
  BlockBuilder index_{1};
  BlockHandle last_block_;
  bool last_block_unindexed_ = false;  // its separator depends on the next key
  std::string last_key_;
  std::string file_;
};

}  // namespace tensorbundle
