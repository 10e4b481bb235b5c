// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/entry_cursor.h"

#include <string>
#include <utility>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {

bool EntryCursor::Next() {
  BlockEntry entry;
  while (!walker_ || !walker_->Next(&entry)) {
    if (!OpenNextBlock()) return false;
  }
  TakeKey(entry);
  value_ = entry.value;
  ++ordinal_;
  return true;
}

// Closes the block before it too. False when there is no other.
bool EntryCursor::OpenNextBlock() {
  if (num_opened_ > 0) {
    if (!walker_ || !walker_->ok() || ordinal_ == 0) ThrowBadEntry("is malformed");
    if (key_ > Current().separator) {
      --ordinal_;
      ThrowBadEntry("is greater than the block's separator");
    }
  }
  if (num_opened_ == table_.blocks().size()) return false;
  block_ = table_.ReadBlock(table_.blocks()[num_opened_++].handle, std::move(block_));
  walker_ = BlockWalker::Open(block_.bytes());
  ordinal_ = 0;
  const uint32_t checksum = block_.checksum();
  checksum_ = crc32c::Extend(checksum_, &checksum, sizeof(checksum));
  return true;
}

void EntryCursor::TakeKey(const BlockEntry& entry) {
  // BlockWalker lets no first entry share, so a prefix always comes from the entry before.
  if (entry.shared > key_.size()) ThrowBadEntry("shares more than the key before it has");
  const uint64_t size = uint64_t{entry.shared} + entry.key_delta.size();
  if (!budget_.Take(size)) ThrowBadEntry("expands the keys beyond reason");
  const std::string_view delta = AsText(entry.key_delta);
  const bool starts_table = ordinal_ == 0 && num_opened_ == 1;
  const std::string_view bound = ordinal_ > 0 || starts_table
                                     ? key_
                                     : std::string_view(table_.blocks()[num_opened_ - 2].separator);
  // What both keys share cannot order them.
  if (!starts_table && delta <= bound.substr(entry.shared)) ThrowBadEntry("is out of order");
  key_ = keys_.Add(key_.substr(0, entry.shared), delta);
}

void EntryCursor::ThrowBadEntry(const char* what) const {
  throw CorruptionError(table_.source().path() + ": entry " + std::to_string(ordinal_) +
                        " of the block at offset " + std::to_string(Current().handle.offset) + " " +
                        what);
}

}  // namespace tensorbundle
