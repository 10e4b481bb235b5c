// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/block.h"

#include "tensorbundle/base/coding.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kRestartSize = sizeof(uint32_t);

}  // namespace

const uint8_t* DecodeEntryHeader(const uint8_t* p, const uint8_t* limit, EntryHeader* header) {
  p = DecodeVarint32(p, limit, &header->shared);
  if (p != nullptr) p = DecodeVarint32(p, limit, &header->non_shared);
  if (p != nullptr) p = DecodeVarint32(p, limit, &header->value_size);
  return p;
}

void BlockIterator::Open(ByteSpan block) {
  begin_ = cursor_ = restarts_ = block.data();
  num_restarts_ = next_restart_ = 0;
  count_ = 0;
  key_ = {};
  error_ = Error::kRestarts;
  if (block.size() < 2 * kRestartSize) return;
  const uint8_t* count_at = block.data() + block.size() - kRestartSize;
  const uint32_t count = LoadFixed32(count_at);
  if (count == 0 || count > (block.size() - kRestartSize) / kRestartSize) return;
  const uint8_t* restarts = count_at - uint64_t{count} * kRestartSize;
  const auto entries_size = static_cast<uint64_t>(restarts - block.data());
  if (LoadFixed32(restarts) != 0) return;
  for (uint32_t i = 1; i < count; ++i) {
    const uint32_t restart = LoadFixed32(restarts + i * kRestartSize);
    if (restart <= LoadFixed32(restarts + (i - 1) * kRestartSize) || restart >= entries_size) {
      return;
    }
  }
  restarts_ = restarts;
  num_restarts_ = count;
  error_ = Error::kNone;
}

bool BlockIterator::Fail(Error error) {
  error_ = error;
  return false;
}

// Whether the restart array agrees with the entry at `position`: no restart points into it, and its
// key has no shared prefix if a restart points to it.
bool BlockIterator::MatchesRestarts(uint64_t position, uint32_t shared) {
  if (next_restart_ == num_restarts_) return true;
  const uint32_t restart = LoadFixed32(restarts_ + next_restart_ * kRestartSize);
  if (restart > position) return true;
  ++next_restart_;
  return restart == position && shared == 0;
}

bool BlockIterator::Next() {
  if (error_ != Error::kNone) return false;
  if (cursor_ == restarts_) {
    // An empty block lists one restart, at 0.
    if (next_restart_ != num_restarts_ && cursor_ != begin_) return Fail(Error::kEntry);
    return false;
  }
  EntryHeader header;
  const uint8_t* data = DecodeEntryHeader(cursor_, restarts_, &header);
  if (data == nullptr || header.data_size() > static_cast<uint64_t>(restarts_ - data) ||
      !MatchesRestarts(static_cast<uint64_t>(cursor_ - begin_), header.shared)) {
    return Fail(Error::kEntry);
  }
  if (!IsAllowedKey(header, key_, &limit_)) {
    return Fail(header.shared > key_.size() ? Error::kPrefix : Error::kExpansion);
  }
  const std::string_view delta = AsText({data, header.non_shared});
  // The shared prefix is equal: the order depends on the rest of the keys.
  if (count_ > 0 && delta <= key_.substr(header.shared)) return Fail(Error::kOrder);
  key_ = keys_.Add(key_.substr(0, header.shared), delta);
  value_ = {data + header.non_shared, header.value_size};
  cursor_ = data + header.data_size();
  ++count_;
  return true;
}

const char* Describe(BlockIterator::Error error) {
  switch (error) {
    case BlockIterator::Error::kNone:
    case BlockIterator::Error::kRestarts:
    case BlockIterator::Error::kEntry:
      return "is malformed";
    case BlockIterator::Error::kPrefix:
      return "shares more bytes than the previous key has";
    case BlockIterator::Error::kOrder:
      return "is out of order";
    case BlockIterator::Error::kExpansion:
      return "exceeds the limit of decompressed keys, 32 times the file size + 1 MiB";
  }
  return "is malformed";
}

}  // namespace tensorbundle
