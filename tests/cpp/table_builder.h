// SPDX-License-Identifier: Apache-2.0
// A writer of table files for tests: valid ones, and ones with errors in chosen places.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/crc32c.h"

namespace tensorbundle::testing {

inline void AppendFixed32(uint32_t value, std::string* out) {
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

inline void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// One field of a protobuf message.
inline std::string VarintField(uint32_t number, uint64_t value) {
  std::string field;
  AppendVarint(number << 3, &field);
  AppendVarint(value, &field);
  return field;
}

inline std::string BytesField(uint32_t number, std::string_view bytes) {
  std::string field;
  AppendVarint(number << 3 | 2, &field);
  AppendVarint(bytes.size(), &field);
  return field.append(bytes);
}

// Builds one block. Requires: keys ascend.
class BlockBuilder {
 public:
  explicit BlockBuilder(int restart_interval) : restart_interval_(restart_interval) {}

  void Add(std::string_view key, std::string_view value) {
    size_t shared = 0;
    if (count_ % restart_interval_ == 0) {
      restarts_.push_back(static_cast<uint32_t>(bytes_.size()));
    } else {
      const auto differ = std::mismatch(key.begin(), key.end(), last_key_.begin(), last_key_.end());
      shared = static_cast<size_t>(differ.first - key.begin());
    }
    AppendVarint(shared, &bytes_);
    AppendVarint(key.size() - shared, &bytes_);
    AppendVarint(value.size(), &bytes_);
    bytes_.append(key.substr(shared)).append(value);
    last_key_ = key;
    ++count_;
  }

  size_t size() const { return bytes_.size(); }
  bool empty() const { return count_ == 0; }

  std::string Finish() {
    if (restarts_.empty()) restarts_.push_back(0);
    for (const uint32_t restart : restarts_) AppendFixed32(restart, &bytes_);
    AppendFixed32(static_cast<uint32_t>(restarts_.size()), &bytes_);
    return std::move(bytes_);
  }

 private:
  int restart_interval_;
  int count_ = 0;
  std::string bytes_;
  std::string last_key_;
  std::vector<uint32_t> restarts_;
};

struct BlockPlace {
  size_t offset = 0;
  size_t size = 0;  // without the trailer
};

// Builds a table. Requires: keys ascend.
class TableBuilder {
 public:
  explicit TableBuilder(size_t block_size = 1 << 18, int restart_interval = 16)
      : block_size_(block_size), restart_interval_(restart_interval), block_(restart_interval) {}

  // Stores the data blocks as Snappy streams of literals, which are valid if not small.
  void UseSnappy() { snappy_ = true; }

  void Add(std::string_view key, std::string_view value) {
    block_.Add(key, value);
    last_key_ = key;
    if (block_.size() >= block_size_) FlushBlock();
  }

  // The whole file.
  std::string Finish() {
    FlushBlock();
    const BlockPlace metaindex = AppendBlock(BlockBuilder(1).Finish());
    BlockBuilder index(1);
    for (const auto& [separator, place] : index_) index.Add(separator, Handle(place));
    const BlockPlace index_place = AppendBlock(index.Finish());
    std::string footer = Handle(metaindex) + Handle(index_place);
    footer.resize(40);
    file_ += footer + "\x57\xfb\x80\x8b\x24\x75\x47\xdb";
    return std::move(file_);
  }

  // Every block written so far: after Finish(), the data blocks, the metaindex and the index.
  const std::vector<BlockPlace>& places() const { return places_; }

  // Updates the checksum of a block.
  static void FixChecksum(const BlockPlace& place, std::string* file) {
    std::string checksum;
    AppendFixed32(crc32c::Mask(crc32c::Value(file->data() + place.offset, place.size + 1)),
                  &checksum);
    file->replace(place.offset + place.size + 1, checksum.size(), checksum);
  }

 private:
  static std::string Handle(const BlockPlace& place) {
    std::string handle;
    AppendVarint(place.offset, &handle);
    AppendVarint(place.size, &handle);
    return handle;
  }

  void FlushBlock() {
    if (block_.empty()) return;
    const std::string block = block_.Finish();
    index_.emplace_back(last_key_, snappy_ ? AppendBlock(AsSnappy(block), 1) : AppendBlock(block));
    block_ = BlockBuilder(restart_interval_);
  }

  static std::string AsSnappy(const std::string& block) {
    constexpr size_t kMaxLiteral = 60;  // more needs a length of its own
    std::string stream;
    AppendVarint(block.size(), &stream);
    for (size_t at = 0; at < block.size(); at += kMaxLiteral) {
      const std::string literal = block.substr(at, kMaxLiteral);
      stream.push_back(static_cast<char>((literal.size() - 1) << 2));
      stream += literal;
    }
    return stream;
  }

  BlockPlace AppendBlock(const std::string& block, char type = 0) {
    const BlockPlace place{file_.size(), block.size()};
    file_ += block + type + std::string(4, '\0');
    FixChecksum(place, &file_);
    places_.push_back(place);
    return place;
  }

  size_t block_size_;
  int restart_interval_;
  bool snappy_ = false;
  BlockBuilder block_;
  std::string last_key_;
  std::string file_;
  std::vector<BlockPlace> places_;
  std::vector<std::pair<std::string, BlockPlace>> index_;
};

}  // namespace tensorbundle::testing
