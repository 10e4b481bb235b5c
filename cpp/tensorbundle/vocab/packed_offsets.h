// SPDX-License-Identifier: Apache-2.0
// An array of offsets of five bytes each: there is one per token, so three bytes saved are worth
// two shifts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/vocab/page_memory.h"

namespace tensorbundle {

class PackedOffsets {
 public:
  static constexpr uint64_t kMax = (uint64_t{1} << 40) - 1;  // a terabyte

  PackedOffsets() = default;
  // All zero. Throws std::bad_alloc.
  explicit PackedOffsets(uint64_t count) : memory_(count * kWidth + kSlack) {}

  uint64_t operator[](uint64_t i) const { return LoadFixed64(At(i)) & kMax; }

  // `value` is at most kMax. Threads may set different elements at the same time.
  void Set(uint64_t i, uint64_t value) { std::memcpy(At(i), &value, kWidth); }

  // Of element i and the one after it.
  void PrefetchPair(uint64_t i) const {
    __builtin_prefetch(At(i));
    __builtin_prefetch(At(i) + 2 * kWidth);
  }

 private:
  static constexpr size_t kWidth = 5;
  static constexpr size_t kSlack =
      sizeof(uint64_t) - kWidth;  // the last one is loaded as eight bytes, too

  uint8_t* At(uint64_t i) const { return static_cast<uint8_t*>(memory_.data()) + i * kWidth; }

  PageMemory memory_;
};

}  // namespace tensorbundle
