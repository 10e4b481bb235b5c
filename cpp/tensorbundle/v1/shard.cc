// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/shard.h"

#include <algorithm>
#include <array>
#include <string>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/fork_lock.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/v1/messages.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kFirstReadSize = 512;  // the head of a record with an ordinary name
constexpr uint64_t kMaxSkipped = 512;     // a smaller gap is read, not skipped
constexpr uint64_t kMaxReadAhead = uint64_t{64} << 10;

constexpr uint64_t kRestartSize = sizeof(uint32_t);
constexpr uint64_t kMaxEntryHeadSize = 3 * kMaxVarint32Size;
constexpr uint64_t kMaxKeySize = uint64_t{1} << 20;  // longer than all real names

// The largest block that is cached. TensorFlow's blocks of many records have up to 512 KiB.
constexpr uint64_t kMaxCachedSize = uint64_t{1} << 20;

constexpr uint8_t kV2FirstByte = 0x08;  // BundleHeaderProto.num_shards

std::string At(const V1Shard& shard, const BlockHandle& handle) {
  return shard.path() + ": block at offset " + std::to_string(handle.offset) + ", size " +
         std::to_string(handle.size);
}

}  // namespace

// ---- The entries of a block in memory.

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

// ---- The entries of a block in a file.

ByteSpan ReadWindow::At(uint64_t offset, uint64_t size, uint64_t limit) {
  size = std::min(size, limit - offset);
  const bool ahead = offset >= begin_;
  const uint64_t skipped = ahead ? offset - begin_ : 0;
  if (ahead && RangeFits(skipped, size, bytes_.size())) {
    return bytes_.subspan(skipped, std::min(bytes_.size() - skipped, limit - offset));
  }
  const bool in_sequence = ahead && skipped <= bytes_.size() + kMaxSkipped;
  next_size_ =
      in_sequence ? std::clamp(2 * next_size_, kFirstReadSize, kMaxReadAhead) : kFirstReadSize;
  const uint64_t read_size = std::min(std::max(size, next_size_), limit - offset);
  bytes_ = source_.Read(offset, read_size, &scratch_);
  begin_ = offset;
  return bytes_;
}

std::optional<EntryScanner> EntryScanner::Open(const BlockHandle& handle, ReadWindow* window) {
  if (handle.size < 2 * kRestartSize) return std::nullopt;
  const uint64_t count_at = handle.offset + handle.size - kRestartSize;
  const ByteSpan tail = window->At(count_at, kRestartSize + 1, handle.end());
  const uint64_t count = LoadFixed32(tail.data());
  const auto type = static_cast<BlockType>(tail[kRestartSize]);
  const uint64_t max_count = (handle.size - kRestartSize) / kRestartSize;
  if (type != BlockType::kPlain || count == 0 || count > max_count) return std::nullopt;
  return EntryScanner(handle.offset, count_at - count * kRestartSize, window);
}

bool EntryScanner::Next() {
  EntryHeader header;
  const ByteSpan head = window_->At(next_entry_, kMaxEntryHeadSize, end_);
  const uint8_t* key = DecodeEntryHeader(head.data(), head.data() + head.size(), &header);
  if (key == nullptr || header.key_size() > kMaxKeySize) return false;
  if (!IsAllowedKey(header, key_, &limit_)) return false;
  const uint64_t key_offset = next_entry_ + static_cast<uint64_t>(key - head.data());
  if (header.data_size() > end_ - key_offset) return false;
  const ByteSpan delta = window_->At(key_offset, header.non_shared, end_);
  key_.resize(header.shared);
  key_.append(AsText(delta.first(header.non_shared)));
  value_offset_ = key_offset + header.non_shared;
  value_size_ = header.value_size;
  next_entry_ = value_offset_ + value_size_;
  return true;
}

ByteSpan EntryScanner::ValueHead(uint64_t size) {
  const ByteSpan head = window_->At(value_offset_, std::min(size, value_size_), next_entry_);
  return head.first(std::min<uint64_t>(head.size(), size));
}

// ---- Shards.

V1Shard V1Shard::Open(const std::string& path, const FileOpener& opener) {
  std::shared_ptr<const File> file = opener ? opener(path, ReadMode::kBuffered) : File::Open(path);
  Table table = Table::Open(std::make_shared<FileSource>(file));
  return {std::move(file), std::move(table)};
}

StoredMeta V1Shard::ReadMeta() const {
  if (table_.blocks().empty())
    throw CorruptionError(path() + " is an empty table: there is no meta");
  FirstEntry first = ReadFirstEntry(table_.blocks().front().handle);
  if (!first.key.empty()) {
    throw CorruptionError(
        path() + ": the first key is not the empty one: this is a table, but no V1 checkpoint");
  }
  if (!first.value.empty() && first.value.front() == kV2FirstByte) {
    throw CorruptionError(
        path() +
        " is the index of a V2 checkpoint, not a V1 checkpoint; open it by its prefix, "
        "the name without .index");
  }
  const std::optional<ByteSpan> meta = DecodeMetaValue(first.value);
  if (!meta) {
    throw CorruptionError(path() + ": the value of the empty key, " +
                          std::to_string(first.value.size()) +
                          " bytes, is not the meta of a V1 checkpoint");
  }
  return {std::move(first.block), *meta};
}

V1Shard::FirstEntry V1Shard::ReadFirstEntry(const BlockHandle& handle) const {
  if (!IsSmall(handle)) {
    if (std::optional<FirstEntry> first = ReadFirstEntryOnly(handle)) return std::move(*first);
  }
  Block block = table_.ReadBlock(handle);
  ByteArena keys;
  ExpansionLimit limit(block.bytes().size());
  BlockIterator first(&keys, &limit);
  first.Open(block.bytes());
  if (!first.Next()) throw CorruptionError(At(*this, handle) + ": its first entry is malformed");
  return {std::move(block), std::string(first.key()), first.value()};
}

// Reads the first entry of a large block, and verifies the block with constant memory: a writer
// puts the first tensor into the block of the meta. Returns nothing if the block is compressed or
// malformed.
std::optional<V1Shard::FirstEntry> V1Shard::ReadFirstEntryOnly(const BlockHandle& handle) const {
  ReadWindow window(table_.source());
  std::optional<EntryScanner> entry = EntryScanner::Open(handle, &window);
  if (!entry || !entry->Next()) return std::nullopt;
  std::vector<uint8_t> bytes(entry->value_offset() + entry->value_size() - handle.offset);
  file_->ReadAt(handle.offset, bytes);
  const uint32_t crc = crc32c::Value(bytes.data(), bytes.size());
  VerifyBlock(handle, {handle.offset, bytes.size(), crc});
  // Decodes the bytes that were verified; the scanner has read others.
  EntryHeader header;
  const uint8_t* end = bytes.data() + bytes.size();
  const uint8_t* key = DecodeEntryHeader(bytes.data(), end, &header);
  if (key == nullptr || header.shared != 0) return std::nullopt;
  if (header.data_size() != static_cast<uint64_t>(end - key)) return std::nullopt;
  std::string name(AsText({key, header.non_shared}));
  const ByteSpan value(key + header.non_shared, header.value_size);
  const ByteSpan all(bytes);  // a move of `bytes` does not change its address
  return FirstEntry{Block(all, std::move(bytes), crc), std::move(name), value};
}

std::optional<StoredRecord> V1Shard::ReadRecord(std::string_view key) const {
  const BlockIndexEntry* found = table_.FindBlock(key);
  if (found == nullptr) return std::nullopt;
  std::shared_ptr<const BlockEntries> block = ReadEntries(found->handle);
  const std::optional<ByteSpan> value = block->Find(key);
  if (!value) return std::nullopt;
  return StoredRecord{std::move(block), *value};
}

std::shared_ptr<const BlockEntries> V1Shard::ReadEntries(const BlockHandle& handle) const {
  {
    const ForkLock lock;
    if (last_->entries != nullptr && last_->offset == handle.offset) return last_->entries;
  }
  auto entries = std::make_shared<const BlockEntries>(BlockEntries::Read(table_, handle));
  if (IsSmall(handle)) {
    std::shared_ptr<const BlockEntries> last = entries;  // freed after the lock is released
    const ForkLock lock;
    last_->offset = handle.offset;
    last_->entries.swap(last);
  }
  return entries;
}

bool V1Shard::IsSmall(const BlockHandle& handle) { return handle.size <= kMaxCachedSize; }

void V1Shard::Forget() const {
  std::shared_ptr<const BlockEntries> last;  // freed after the lock is released
  const ForkLock lock;
  last_->entries.swap(last);
}

void V1Shard::VerifyBlock(const BlockHandle& handle, const ReadBytes& known) const {
  std::array<uint8_t, sizeof(uint32_t)> stored;
  file_->ReadAt(handle.offset + handle.size + 1, stored);
  const uint32_t expected = crc32c::Unmask(LoadFixed32(stored.data()));
  const auto ignore_progress = [](uint64_t) {};
  const uint64_t known_end = known.offset + known.size;
  const uint64_t after = handle.offset + handle.size + 1 - known_end;  // with the type
  uint32_t actual =
      ParallelChecksum(*file_, handle.offset, known.offset - handle.offset, 1, ignore_progress);
  actual = crc32c::Combine(actual, known.crc, known.size);
  actual = crc32c::Combine(actual, ParallelChecksum(*file_, known_end, after, 1, ignore_progress),
                           after);
  if (actual != expected) {
    throw CorruptionError(At(*this, handle) + ": the stored CRC32C is " + std::to_string(expected) +
                          ", its bytes give " + std::to_string(actual));
  }
}

uint32_t V1Shard::ExtendWithChecksums(uint32_t crc) const {
  std::array<uint8_t, kTrailerSize> trailer;
  for (const BlockIndexEntry& block : table_.blocks()) {
    file_->ReadAt(block.handle.offset + block.handle.size, trailer);
    crc = crc32c::Extend(crc, trailer.data(), trailer.size());
  }
  return crc;
}

}  // namespace tensorbundle
