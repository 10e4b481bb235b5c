// SPDX-License-Identifier: Apache-2.0
// Overflow-checked arithmetic on numbers from a file.
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

// Whether [offset, offset + size) is inside [0, limit).
inline bool RangeFits(uint64_t offset, uint64_t size, uint64_t limit) {
  return offset <= limit && size <= limit - offset;
}

// Returns the number of elements of a shape, or nothing if a dimension is negative or the product
// of the nonzero dimensions exceeds INT64_MAX.
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
