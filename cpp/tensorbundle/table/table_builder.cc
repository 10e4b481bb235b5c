// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/table_builder.h"

#include <algorithm>
#include <utility>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"

namespace tensorbundle {
namespace {

constexpr char kLastByte = '\xff';

size_t SharedPrefix(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                             a.begin());
}

// Returns `text` up to and including the byte at `at`, with that byte incremented.
std::string Successor(std::string_view text, size_t at) {
  std::string result(text.substr(0, at + 1));
  result[at] = static_cast<char>(static_cast<uint8_t>(result[at]) + 1);
  return result;
}

// Returns a short key that is >= `last` and < `next`.
std::string SeparatorBetween(std::string_view last, std::string_view next) {
  const size_t at = SharedPrefix(last, next);
  if (at == last.size()) return std::string(last);  // a prefix of `next`
  const bool room = static_cast<uint8_t>(last[at]) + 1 < static_cast<uint8_t>(next[at]);
  return room ? Successor(last, at) : std::string(last);
}

// Returns a short key that is >= `last`.
std::string SeparatorAfter(std::string_view last) {
  const size_t at = last.find_first_not_of(kLastByte);
  return at == std::string_view::npos ? std::string(last) : Successor(last, at);
}

void PutHandle(const BlockHandle& handle, std::string* out) {
  PutVarint64(handle.offset, out);
  PutVarint64(handle.size, out);
}

}  // namespace

void BlockBuilder::Add(std::string_view key, std::string_view value) {
  size_t shared = 0;
  if (since_restart_ < restart_interval_) {
    shared = SharedPrefix(key, last_key_);
  } else {
    restarts_.push_back(static_cast<uint32_t>(bytes_.size()));
    since_restart_ = 0;
  }
  PutVarint64(shared, &bytes_);
  PutVarint64(key.size() - shared, &bytes_);
  PutVarint64(value.size(), &bytes_);
  bytes_.append(key.substr(shared)).append(value);
  last_key_ = key;
  ++since_restart_;
}

uint64_t BlockBuilder::size() const {
  return bytes_.size() + (restarts_.size() + 1) * sizeof(uint32_t);
}

std::string BlockBuilder::Finish() {
  for (const uint32_t restart : restarts_) PutFixed32(restart, &bytes_);
  PutFixed32(static_cast<uint32_t>(restarts_.size()), &bytes_);
  std::string block = std::move(bytes_);
  *this = BlockBuilder(restart_interval_);
  return block;
}

TableBuilder::TableBuilder(uint64_t block_size, int restart_interval)
    : block_size_(block_size), data_(restart_interval) {}

void TableBuilder::Add(std::string_view key, std::string_view value) {
  if (last_block_unindexed_) IndexLastBlock(SeparatorBetween(last_key_, key));
  // TensorFlow stores large records in blocks of their own.
  if (!data_.empty() && key.size() + value.size() >= 2 * block_size_) {
    EndBlock();
    IndexLastBlock(SeparatorBetween(last_key_, key));
  }
  data_.Add(key, value);
  last_key_ = key;
  if (data_.size() >= block_size_) EndBlock();
}

void TableBuilder::EndBlock() {
  last_block_ = Append(data_.Finish());
  last_block_unindexed_ = true;
}

void TableBuilder::IndexLastBlock(std::string_view separator) {
  std::string handle;
  PutHandle(last_block_, &handle);
  index_.Add(separator, handle);
  last_block_unindexed_ = false;
}

std::string TableBuilder::Finish() {
  if (!data_.empty()) EndBlock();
  const BlockHandle metaindex = Append(BlockBuilder(1).Finish());
  if (last_block_unindexed_) IndexLastBlock(SeparatorAfter(last_key_));
  const BlockHandle index = Append(index_.Finish());
  std::string footer;
  PutHandle(metaindex, &footer);
  PutHandle(index, &footer);
  footer.resize(kFooterSize - sizeof(kTableMagic));
  PutFixed64(kTableMagic, &footer);
  return std::move(file_) + footer;
}

BlockHandle TableBuilder::Append(std::string block) {
  const BlockHandle handle{file_.size(), block.size()};
  block.push_back(static_cast<char>(BlockType::kPlain));
  PutFixed32(crc32c::Mask(crc32c::Value(block.data(), block.size())), &block);
  file_ += block;
  return handle;
}

}  // namespace tensorbundle
