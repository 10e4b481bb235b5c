// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/entry_scanner.h"

#include <algorithm>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/coding.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kFirstReadSize = 512;  // the head of a record with names of ordinary length
constexpr uint64_t kMaxGap = 512;         // skipping less saves nothing
constexpr uint64_t kMaxReadAhead = uint64_t{64} << 10;

constexpr uint64_t kRestartSize = sizeof(uint32_t);
constexpr uint64_t kMaxEntryHeadSize = 3 * kMaxVarint32Size;
constexpr uint64_t kMaxKeySize = uint64_t{1} << 20;  // longer names exist in theory only

}  // namespace

ByteSpan ReadWindow::At(uint64_t offset, uint64_t size, uint64_t limit) {
  size = std::min(size, limit - offset);
  const bool ahead = offset >= begin_;
  const uint64_t skipped = ahead ? offset - begin_ : 0;
  if (ahead && RangeFits(skipped, size, bytes_.size())) {
    return bytes_.subspan(skipped, std::min(bytes_.size() - skipped, limit - offset));
  }
  const bool in_sequence = ahead && skipped <= bytes_.size() + kMaxGap;
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

}  // namespace tensorbundle
