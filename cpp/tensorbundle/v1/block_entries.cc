// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/block_entries.h"

#include <algorithm>
#include <string>

#include "tensorbundle/base/error.h"

namespace tensorbundle {

BlockEntries BlockEntries::Read(const Table& table, const BlockHandle& handle) {
  std::vector<uint8_t> scratch;
  const uint8_t type = table.source().Read(handle.offset + handle.size, 1, &scratch).front();
  const bool is_plain = static_cast<BlockType>(type) == BlockType::kPlain;
  BlockEntries entries(table.ReadBlock(handle), handle, is_plain);
  if (!entries.Index()) {
    throw CorruptionError(table.source().path() + ": entry " +
                          std::to_string(entries.entries_.size()) + " of the block at offset " +
                          std::to_string(handle.offset) + " is malformed or out of order");
  }
  return entries;
}

bool BlockEntries::Index() {
  ExpansionLimit limit(block_.bytes().size());
  BlockIterator entries(&keys_, &limit);
  entries.Open(block_.bytes());
  while (entries.Next()) entries_.push_back({entries.key(), entries.value()});
  return entries.error() == BlockIterator::Error::kNone;
}

std::optional<ByteSpan> BlockEntries::Find(std::string_view key) const {
  const auto found = std::ranges::lower_bound(entries_, key, {}, &Entry::key);
  if (found == entries_.end() || found->key != key) return std::nullopt;
  return found->value;
}

std::optional<uint64_t> BlockEntries::OffsetInFile(ByteSpan value) const {
  if (!is_plain_) return std::nullopt;
  return handle_.offset + static_cast<uint64_t>(value.data() - block_.bytes().data());
}

}  // namespace tensorbundle
