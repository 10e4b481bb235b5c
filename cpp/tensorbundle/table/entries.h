// SPDX-License-Identifier: Apache-2.0
// Every entry of a table, checked and laid out for lookup.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/key_budget.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

// Keys strictly ascend, so that an entry is found by binary search. Values are borrowed from the
// table's source or from blocks kept here.
class TableEntries {
 public:
  // Reads every data block. Throws CorruptionError on the first fault: an index with a damaged
  // block would otherwise just list fewer tensors.
  static TableEntries ReadAll(const Table& table);

  size_t size() const { return entries_.size(); }
  std::string_view key(size_t i) const {
    return {keys_.data() + entries_[i].key_offset, entries_[i].key_size};
  }
  ByteSpan value(size_t i) const { return entries_[i].value; }

  // The index of `key`, or size().
  size_t Find(std::string_view key) const;

  // Gives away the bytes that the keys lie in; their addresses do not change.
  std::vector<char> TakeKeys() { return std::move(keys_); }

 private:
  struct Entry {
    uint64_t key_offset;
    uint64_t key_size;
    ByteSpan value;
  };
  void Reserve(const Table& table);
  void AppendBlock(const Table& table, const BlockIndexEntry& block, std::string_view lower_bound,
                   KeyBudget* budget);
  void AppendKey(const BlockEntry& entry);

  std::vector<char> keys_;
  std::vector<Entry> entries_;
  std::vector<Block> blocks_;
};

}  // namespace tensorbundle
