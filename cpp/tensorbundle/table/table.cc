// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/table.h"

#include <algorithm>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/interrupt.h"
#include "tensorbundle/table/snappy.h"

namespace tensorbundle {
namespace {

constexpr std::string_view kLfsPointer = "version https://git-lfs";

std::string At(const ByteSource& source, const BlockHandle& handle) {
  return source.path() + ": block at offset " + std::to_string(handle.offset) + ", size " +
         std::to_string(handle.size);
}

[[noreturn]] void ThrowNotATable(const ByteSource& source, const std::string& what) {
  std::vector<uint8_t> scratch;
  const uint64_t head_size = std::min<uint64_t>(source.size(), kLfsPointer.size());
  const bool is_pointer = AsText(source.Read(0, head_size, &scratch)) == kLfsPointer;
  throw CorruptionError(source.path() + " is not a TensorFlow checkpoint table: " + what +
                        (is_pointer
                             ? "; it is a Git-LFS pointer: fetch the real file with `git lfs pull`"
                             : "; was the file truncated, or is it another kind of file?"));
}

Footer ReadFooter(const ByteSource& source) {
  if (source.size() < kFooterSize) {
    ThrowNotATable(source, "it has " + std::to_string(source.size()) +
                               " bytes, the footer alone has " + std::to_string(kFooterSize));
  }
  std::vector<uint8_t> scratch;
  const ByteSpan bytes = source.Read(source.size() - kFooterSize, kFooterSize, &scratch);
  if (!HasTableMagic(bytes)) ThrowNotATable(source, "its last 8 bytes are not the table magic");
  const std::optional<Footer> footer = DecodeFooter(bytes);
  if (!footer) {
    throw CorruptionError(source.path() + ": the footer at offset " +
                          std::to_string(source.size() - kFooterSize) + " is malformed");
  }
  return *footer;
}

// Throws unless the blocks are disjoint and in order: two entries for one block would list its keys
// twice.
void CheckBlockOrder(const ByteSource& source, const std::vector<BlockIndexEntry>& blocks,
                     uint64_t limit) {
  uint64_t end = 0;
  for (const BlockIndexEntry& block : blocks) {
    if (!block.handle.FitsBefore(limit) || block.handle.offset < end) {
      throw CorruptionError(
          At(source, block.handle) + " is not between the block before it, which ends at " +
          std::to_string(end) + ", and the metaindex block at " + std::to_string(limit));
    }
    end = block.handle.end();
  }
}

}  // namespace

Table Table::Open(std::shared_ptr<const ByteSource> source) {
  const Footer footer = ReadFooter(*source);
  Table table(std::move(source), footer);
  const uint64_t limit = table.source_->size() - kFooterSize;
  for (const BlockHandle& handle : {footer.metaindex, footer.index}) {
    if (!handle.FitsBefore(limit)) {
      throw CorruptionError(At(*table.source_, handle) + " does not fit before the footer at " +
                            std::to_string(limit));
    }
  }
  table.ReadBlock(footer.metaindex);  // only for its checksum; its contents are not used
  table.ReadBlockIndex();
  CheckBlockOrder(*table.source_, table.blocks_, footer.metaindex.offset);
  return table;
}

void Table::ReadBlockIndex() {
  const Block block = ReadBlock(footer_.index);
  ByteArena separators;
  ExpansionLimit limit(source_->size());
  BlockIterator entries(&separators, &limit);
  entries.Open(block.bytes());
  const auto throw_bad_entry = [&](const std::string& what) {
    throw CorruptionError(At(*source_, footer_.index) + ": entry " +
                          std::to_string(blocks_.size()) + " of the index block " + what);
  };
  while (entries.Next()) {
    BlockHandle handle;
    const uint8_t* p = entries.value().data();
    if (DecodeBlockHandle(p, p + entries.value().size(), &handle) == nullptr) {
      throw_bad_entry("has a malformed block handle");
    }
    blocks_.push_back({std::string(entries.key()), handle});
  }
  if (entries.error() == BlockIterator::Error::kRestarts) {
    throw CorruptionError(At(*source_, footer_.index) + ": the index block is malformed");
  }
  if (entries.error() != BlockIterator::Error::kNone) throw_bad_entry(Describe(entries.error()));
}

Block Table::ReadBlock(const BlockHandle& handle, Block used) const {
  CheckInterrupt();
  std::vector<uint8_t> memory = std::move(used).TakeMemory();
  const ByteSpan stored = source_->Read(handle.offset, handle.size + kTrailerSize, &memory);
  const uint8_t* trailer = stored.data() + handle.size;
  const uint32_t expected = crc32c::Unmask(LoadFixed32(trailer + 1));
  const uint32_t actual = crc32c::Value(stored.data(), handle.size + 1);
  if (actual != expected) {
    throw CorruptionError(At(*source_, handle) + ": the stored CRC32C is " +
                          std::to_string(expected) + ", its bytes give " + std::to_string(actual));
  }
  const ByteSpan contents = stored.first(handle.size);
  switch (static_cast<BlockType>(*trailer)) {
    case BlockType::kPlain:
      return {contents, std::move(memory), actual};
    case BlockType::kSnappy: {
      std::optional<std::vector<uint8_t>> plain = SnappyUncompress(contents);
      if (!plain) throw CorruptionError(At(*source_, handle) + ": malformed Snappy data");
      const ByteSpan bytes(*plain);
      return {bytes, std::move(*plain), actual};
    }
  }
  throw CorruptionError(At(*source_, handle) + ": unknown block type " + std::to_string(*trailer) +
                        " (0 is plain, 1 is Snappy)");
}

const BlockIndexEntry* Table::FindBlock(std::string_view key) const {
  const auto found = std::ranges::lower_bound(blocks_, key, {}, &BlockIndexEntry::separator);
  return found == blocks_.end() ? nullptr : &*found;
}

bool TableIterator::Next() {
  while (num_opened_ == 0 || !entries_.Next()) {
    if (num_opened_ > 0) CheckEndOfBlock();
    if (!OpenNextBlock()) return false;
  }
  // BlockIterator compares the keys within a block; this compares the first key with the block
  // before it.
  if (entries_.count() == 1 && num_opened_ > 1 &&
      key() <= table_.blocks()[num_opened_ - 2].separator) {
    ThrowBadEntry(0, "is out of order");
  }
  return true;
}

bool TableIterator::OpenNextBlock() {
  if (num_opened_ == table_.blocks().size()) return false;
  block_ = table_.ReadBlock(table_.blocks()[num_opened_++].handle, std::move(block_));
  entries_.Open(block_.bytes());
  const uint32_t checksum = block_.checksum();
  checksum_ = crc32c::Extend(checksum_, &checksum, sizeof(checksum));
  return true;
}

void TableIterator::CheckEndOfBlock() const {
  const uint64_t count = entries_.count();
  if (entries_.error() != BlockIterator::Error::kNone) {
    ThrowBadEntry(count, Describe(entries_.error()));
  }
  if (count == 0) ThrowBadEntry(0, "is malformed");
  if (key() > table_.blocks()[num_opened_ - 1].separator) {
    ThrowBadEntry(count - 1, "is greater than the block's separator");
  }
}

void TableIterator::ThrowBadEntry(uint64_t entry, const char* what) const {
  throw CorruptionError(
      table_.source().path() + ": entry " + std::to_string(entry) + " of the block at offset " +
      std::to_string(table_.blocks()[num_opened_ - 1].handle.offset) + " " + what);
}

TableEntries TableEntries::ReadAll(const Table& table) {
  TableEntries result;
  TableIterator entries(table, &result.bytes_);
  while (entries.Next()) {
    result.entries_.push_back({entries.key(), result.bytes_.Add(AsText(entries.value()))});
  }
  return result;
}

size_t TableEntries::Find(std::string_view wanted) const {
  const auto found = std::ranges::lower_bound(entries_, wanted, {}, &Entry::key);
  if (found == entries_.end() || found->key != wanted) return size();
  return static_cast<size_t>(found - entries_.begin());
}

}  // namespace tensorbundle
