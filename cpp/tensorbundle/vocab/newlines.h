// SPDX-License-Identifier: Apache-2.0
// Finding the ends of lines, 64 bytes at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "tensorbundle/base/coding.h"

namespace tensorbundle {

// Bytes that must be readable (and zero) behind the last one of a text: it is scanned in steps of
// this size.
inline constexpr size_t kTextPadding = 64;

#ifdef __SSE2__

// Bit i tells whether p[i] is '\n', for i < 64.
inline uint64_t NewlineMask(const uint8_t* p) {
  const __m128i newline = _mm_set1_epi8('\n');
  uint64_t mask = 0;
  for (int i = 0; i < 4; ++i) {
    __m128i bytes;
    std::memcpy(&bytes, p + 16 * i, sizeof(bytes));
    mask |= uint64_t{static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, newline)))}
            << (16 * i);
  }
  return mask;
}

#else

inline uint64_t NewlineMask(const uint8_t* p) {
  constexpr uint64_t kLow = 0x0101010101010101;
  constexpr uint64_t kGather =
      0x0002040810204081;  // brings the bits 7, 15, .. 63 to the top byte, in order
  uint64_t mask = 0;
  for (int i = 0; i < 8; ++i) {
    // The high bit of each byte that is '\n', and no other: the sum carries into no neighbour.
    const uint64_t other = LoadFixed64(p + 8 * i) ^ (kLow * '\n');
    const uint64_t found = ~(((other & (kLow * 0x7f)) + kLow * 0x7f) | other) & (kLow * 0x80);
    mask |= (found * kGather >> 56) << (8 * i);
  }
  return mask;
}

#endif

// Whether nothing but a '\r' lies between the '\n' at `end` and the one before it. `before` bytes
// of the text lie before `end`; those that matter, two at most, must be readable.
inline bool EndsEmptyLine(const uint8_t* end, uint64_t before) {
  if (before == 0 || end[-1] == '\n') return true;
  return end[-1] == '\r' && (before == 1 || end[-2] == '\n');
}

}  // namespace tensorbundle
