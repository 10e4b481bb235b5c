// SPDX-License-Identifier: Apache-2.0
// Every entry of a table, checked and laid out for lookup.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "tensorbundle/base/byte_arena.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

// Keys strictly ascend, so that an entry is found by binary search. Owns keys and values.
class TableEntries {
 public:
  // Reads every data block. Throws as EntryCursor.
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
