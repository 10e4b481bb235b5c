// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/entries.h"

#include <algorithm>
#include <string>

#include "tensorbundle/base/error.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/key_budget.h"

namespace tensorbundle {
namespace {

// Of the indexes that TensorFlow writes: a record of 30 bytes and more, keys that share most of a
// prefix.
constexpr uint64_t kUsualRecordSize = 30;
constexpr uint64_t kUsualKeyExpansion = 2;

[[noreturn]] void ThrowBadEntry(const Table& table, const BlockIndexEntry& block, size_t ordinal,
                                const char* what) {
  throw CorruptionError(table.source().path() + ": entry " + std::to_string(ordinal) +
                        " of the block at offset " + std::to_string(block.handle.offset) + " " +
                        what);
}

}  // namespace

TableEntries TableEntries::ReadAll(const Table& table) {
  TableEntries result;
  KeyBudget budget(table.source().size());
  result.Reserve(table);
  std::string_view lower_bound;
  for (const BlockIndexEntry& block : table.blocks()) {
    result.AppendBlock(table, block, lower_bound, &budget);
    lower_bound = block.separator;
  }
  return result;
}

void TableEntries::Reserve(const Table& table) {
  uint64_t stored = 0;
  for (const BlockIndexEntry& block : table.blocks()) stored += block.handle.size;
  // Memory that is not touched costs nothing, growing and moving does: half of the time of opening.
  entries_.reserve(stored / kUsualRecordSize);
  keys_.reserve(stored * kUsualKeyExpansion);
  blocks_.reserve(table.blocks().size());
}

void TableEntries::AppendBlock(const Table& table, const BlockIndexEntry& block,
                               std::string_view lower_bound, KeyBudget* budget) {
  blocks_.push_back(table.ReadBlock(block.handle));
  std::optional<BlockWalker> walker = BlockWalker::Open(blocks_.back().bytes());
  BlockEntry entry;
  size_t ordinal = 0;
  for (; walker && walker->Next(&entry); ++ordinal) {
    // BlockWalker lets no first entry share, so a prefix always comes from the entry before.
    const bool first = ordinal == 0;
    if (!first && entry.shared > entries_.back().key_size) {
      ThrowBadEntry(table, block, ordinal, "shares more than the key before it has");
    }
    const uint64_t size = uint64_t{entry.shared} + entry.key_delta.size();
    if (!budget->Take(size)) ThrowBadEntry(table, block, ordinal, "expands the keys beyond reason");
    AppendKey(entry);
    entries_.push_back({keys_.size() - size, size, entry.value});
    const std::string_view previous = first ? lower_bound : key(entries_.size() - 2);
    const bool starts_table = first && blocks_.size() == 1;
    if (!starts_table && key(entries_.size() - 1) <= previous) {
      ThrowBadEntry(table, block, ordinal, "is out of order");
    }
  }
  if (!walker || !walker->ok() || ordinal == 0) {
    ThrowBadEntry(table, block, ordinal, "is malformed");
  }
  if (key(entries_.size() - 1) > block.separator) {
    ThrowBadEntry(table, block, ordinal - 1, "is greater than the block's separator");
  }
}

void TableEntries::AppendKey(const BlockEntry& entry) {
  const size_t offset = keys_.size();
  keys_.resize(offset + entry.shared + entry.key_delta.size());
  char* p = keys_.data() + offset;
  if (entry.shared > 0) p = std::copy_n(keys_.data() + entries_.back().key_offset, entry.shared, p);
  std::copy_n(AsText(entry.key_delta).data(), entry.key_delta.size(), p);
}

size_t TableEntries::Find(std::string_view wanted) const {
  size_t low = 0;
  size_t high = entries_.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (key(middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < entries_.size() && key(low) == wanted ? low : entries_.size();
}

}  // namespace tensorbundle
