// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/block.h"

#include "tensorbundle/base/coding.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kRestartSize = sizeof(uint32_t);

const uint8_t* DecodeEntry(const uint8_t* p, const uint8_t* limit, BlockEntry* entry) {
  uint32_t key_size = 0;
  uint32_t value_size = 0;
  p = DecodeVarint32(p, limit, &entry->shared);
  if (p != nullptr) p = DecodeVarint32(p, limit, &key_size);
  if (p != nullptr) p = DecodeVarint32(p, limit, &value_size);
  if (p == nullptr) return nullptr;
  // Two 32-bit lengths are added in 64 bits: their 32-bit sum is the wrap that crashes other
  // readers.
  const auto left = static_cast<uint64_t>(limit - p);
  if (uint64_t{key_size} + value_size > left) return nullptr;
  entry->key_delta = ByteSpan(p, key_size);
  entry->value = ByteSpan(p + key_size, value_size);
  return p + key_size + value_size;
}

}  // namespace

std::optional<BlockWalker> BlockWalker::Open(ByteSpan block) {
  if (block.size() < 2 * kRestartSize) return std::nullopt;
  const uint8_t* count_at = block.data() + block.size() - kRestartSize;
  const uint32_t count = LoadFixed32(count_at);
  if (count == 0 || count > (block.size() - kRestartSize) / kRestartSize) return std::nullopt;
  const uint8_t* restarts = count_at - uint64_t{count} * kRestartSize;
  const auto entries_size = static_cast<uint64_t>(restarts - block.data());
  if (LoadFixed32(restarts) != 0) return std::nullopt;
  for (uint32_t i = 1; i < count; ++i) {
    const uint32_t restart = LoadFixed32(restarts + i * kRestartSize);
    if (restart <= LoadFixed32(restarts + (i - 1) * kRestartSize) || restart >= entries_size) {
      return std::nullopt;
    }
  }
  return BlockWalker(block, restarts, count);
}

bool BlockWalker::CheckRestart(uint64_t position, uint32_t shared) {
  if (next_restart_ == num_restarts_) return true;
  const uint32_t restart = LoadFixed32(restarts_ + next_restart_ * kRestartSize);
  if (restart > position) return true;
  ++next_restart_;
  return restart == position && shared == 0;
}

bool BlockWalker::Next(BlockEntry* entry) {
  if (!ok_) return false;
  if (cursor_ == restarts_) {
    // An empty block still lists its one restart, at 0.
    ok_ = next_restart_ == num_restarts_ || cursor_ == begin_;
    return false;
  }
  const auto position = static_cast<uint64_t>(cursor_ - begin_);
  const uint8_t* next = DecodeEntry(cursor_, restarts_, entry);
  ok_ = next != nullptr && CheckRestart(position, entry->shared);
  if (ok_) cursor_ = next;
  return ok_;
}

}  // namespace tensorbundle
