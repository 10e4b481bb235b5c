// SPDX-License-Identifier: Apache-2.0
// Walks a block in a file by reading little more than the heads of its entries.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/format.h"

namespace tensorbundle {

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

}  // namespace tensorbundle
