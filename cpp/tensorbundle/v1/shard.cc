// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/shard.h"

#include <array>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/v1/messages.h"

namespace tensorbundle {
namespace {

// TensorFlow's blocks of many records have up to twice 256 KiB.
constexpr uint64_t kMaxKeptSize = uint64_t{1} << 20;

constexpr uint8_t kV2FirstByte = 0x08;  // BundleHeaderProto.num_shards

std::string At(const V1Shard& shard, const BlockHandle& handle) {
  return shard.path() + ": block at offset " + std::to_string(handle.offset) + ", size " +
         std::to_string(handle.size);
}

}  // namespace

V1Shard V1Shard::Open(const std::string& path) {
  std::shared_ptr<const File> file = File::Open(path);
  Table table = Table::Open(std::make_shared<FileSource>(file));
  return {std::move(file), std::move(table)};
}

StoredMeta V1Shard::ReadMeta() const {
  if (table_.blocks().empty())
    throw CorruptionError(path() + " is an empty table: there is no meta");
  const BlockHandle& handle = table_.blocks().front().handle;
  Block block = table_.ReadBlock(handle);
  ByteArena keys;
  ExpansionLimit limit(block.bytes().size());
  BlockIterator first(&keys, &limit);
  first.Open(block.bytes());
  if (!first.Next()) throw CorruptionError(At(*this, handle) + ": its first entry is malformed");
  if (!first.key().empty()) {
    throw CorruptionError(
        path() + ": the first key is not the empty one: this is a table, but no V1 checkpoint");
  }
  if (!first.value().empty() && first.value().front() == kV2FirstByte) {
    throw CorruptionError(
        path() +
        " is the index of a V2 checkpoint, not a V1 checkpoint; open it by its prefix, "
        "the name without .index");
  }
  const std::optional<ByteSpan> meta = DecodeMetaValue(first.value());
  if (!meta) {
    throw CorruptionError(path() + ": the value of the empty key, " +
                          std::to_string(first.value().size()) +
                          " bytes, is not the meta of a V1 checkpoint");
  }
  return {std::move(block), *meta};
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
    const std::lock_guard<std::mutex> lock(last_->mutex);
    if (last_->entries != nullptr && last_->offset == handle.offset) return last_->entries;
  }
  auto entries = std::make_shared<const BlockEntries>(BlockEntries::Read(table_, handle));
  if (IsSmall(handle)) {
    const std::lock_guard<std::mutex> lock(last_->mutex);
    last_->offset = handle.offset;
    last_->entries = entries;
  }
  return entries;
}

bool V1Shard::IsSmall(const BlockHandle& handle) { return handle.size <= kMaxKeptSize; }

void V1Shard::Forget() const {
  const std::lock_guard<std::mutex> lock(last_->mutex);
  last_->entries = nullptr;
}

void V1Shard::VerifyBlock(const BlockHandle& handle) const {
  std::array<uint8_t, sizeof(uint32_t)> stored;
  file_->ReadAt(handle.offset + handle.size + 1, stored);
  const uint32_t expected = crc32c::Unmask(LoadFixed32(stored.data()));
  const auto ignore_progress = [](uint64_t) {};
  const uint32_t actual =
      ParallelChecksum(*file_, handle.offset, handle.size + 1, 1, ignore_progress);
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
