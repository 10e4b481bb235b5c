// SPDX-License-Identifier: Apache-2.0
// Where bytes of a file land first: at their destination, or beside it where that is faster.
#pragma once

#include <cstdint>
#include <optional>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/nontemporal_copy.h"
#include "tensorbundle/io/page_buffer.h"

namespace tensorbundle {

// Whether a copy of the page cache's bytes at `offset` of a file would be slow: where the
// destination lies just ahead of the source within a page, processors take each load for one of the
// bytes just stored. On an AMD EPYC that took three times as long as any other distance.
inline bool Collides(const uint8_t* destination, uint64_t offset) {
  constexpr uint64_t kAliasing = 4096;  // addresses are told apart by so many bytes at first
  const uint64_t ahead = (reinterpret_cast<uintptr_t>(destination) - offset) % kAliasing;
  return ahead > 0 && ahead < kCacheLine;
}

enum class BouncePolicy { kFastest, kDestination, kBounce };

// Lives while some bytes are read and looked at; the destination outlives it.
class BounceBuffer {
 public:
  // For the bytes at `offset` of a file.
  BounceBuffer(MutableByteSpan destination, uint64_t offset,
               BouncePolicy where = BouncePolicy::kFastest)
      : destination_(destination), bytes_(destination) {
    if (where == BouncePolicy::kDestination) return;
    if (where == BouncePolicy::kFastest && !Collides(destination.data(), offset)) return;
    const uint64_t skew = offset % kCacheLine;  // as in the file, which makes a copy fastest
    buffer_.emplace(destination.size() + skew);
    bytes_ = {buffer_->data() + skew, destination.size()};
  }

  // What to read into.
  MutableByteSpan bytes() const { return bytes_; }

  // Brings the bytes to their destination, if they are not there.
  void CopyOut() const {
    if (!buffer_) return;
    NontemporalCopy(destination_.data(), bytes_.data(), bytes_.size());
    FenceNontemporalStores();
  }

 private:
  MutableByteSpan destination_;
  MutableByteSpan bytes_;
  std::optional<PageBuffer> buffer_;
};

}  // namespace tensorbundle
