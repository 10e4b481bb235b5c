// SPDX-License-Identifier: Apache-2.0
// Arithmetic on numbers that came from a file: it overflows into "no", never into a small number.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace tensorbundle {

inline std::optional<uint64_t> CheckedAdd(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

inline std::optional<uint64_t> CheckedMul(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// Whether [offset, offset + size) lies inside [0, limit).
inline bool RangeFits(uint64_t offset, uint64_t size, uint64_t limit) {
  return offset <= limit && size <= limit - offset;
}

// The number of elements of a shape, or nothing when a dimension is negative or the product of the
// dimensions exceeds what an int64 holds. A zero anywhere does not excuse an overflow elsewhere.
inline std::optional<uint64_t> CheckedVolume(std::span<const int64_t> dims) {
  uint64_t volume = 1;
  bool empty = false;
  for (const int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      empty = true;
      continue;
    }
    const std::optional<uint64_t> next = CheckedMul(volume, static_cast<uint64_t>(dim));
    if (!next || *next > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    volume = *next;
  }
  return empty ? 0 : volume;
}

}  // namespace tensorbundle
