// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/table.h"

#include <algorithm>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/key_budget.h"
#include "tensorbundle/table/snappy.h"

namespace tensorbundle {
namespace {

constexpr std::string_view kLfsPointer = "version https://git-lfs";

std::string At(const ByteSource& source, const BlockHandle& handle) {
  return source.path() + ": block at offset " + std::to_string(handle.offset) + ", size " +
         std::to_string(handle.size);
}

[[noreturn]] void ThrowNotATable(const ByteSource& source, const std::string& why) {
  std::vector<uint8_t> scratch;
  const uint64_t head_size = std::min<uint64_t>(source.size(), kLfsPointer.size());
  const bool is_pointer = AsText(source.Read(0, head_size, &scratch)) == kLfsPointer;
  throw CorruptionError(source.path() + " is not a TensorFlow checkpoint table: " + why +
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

// Blocks must come one after another: two entries for one block would list its keys twice.
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
  table.ReadBlock(footer.metaindex);  // holds nothing we need; its checksum is all that protects it
  table.ReadBlockIndex();
  CheckBlockOrder(*table.source_, table.blocks_, footer.metaindex.offset);
  return table;
}

void Table::ReadBlockIndex() {
  const Block block = ReadBlock(footer_.index);
  std::optional<BlockWalker> walker = BlockWalker::Open(block.bytes());
  BlockEntry entry;
  KeyBudget budget(source_->size());
  while (walker && walker->Next(&entry)) {
    const std::string_view last = blocks_.empty() ? std::string_view() : blocks_.back().separator;
    BlockIndexEntry next;
    const uint8_t* p = entry.value.data();
    if (entry.shared <= last.size() && budget.Take(entry.shared + entry.key_delta.size()) &&
        DecodeBlockHandle(p, p + entry.value.size(), &next.handle) != nullptr) {
      next.separator.append(last.substr(0, entry.shared)).append(AsText(entry.key_delta));
    }
    if (next.separator <= last && !(blocks_.empty() && next.handle.size > 0)) {
      throw CorruptionError(At(*source_, footer_.index) + ": entry " +
                            std::to_string(blocks_.size()) +
                            " of the index block is malformed or out of order");
    }
    blocks_.push_back(std::move(next));
  }
  if (!walker || !walker->ok()) {
    throw CorruptionError(At(*source_, footer_.index) + ": the index block is malformed");
  }
}

Block Table::ReadBlock(const BlockHandle& handle, Block used) const {
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

}  // namespace tensorbundle
