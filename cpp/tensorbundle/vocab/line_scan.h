// SPDX-License-Identifier: Apache-2.0
// Finding the ends of lines, 64 bytes at a time.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

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

// What must be known of a part of a text before its lines can be numbered.
//
// Lines end in '\n'. What follows the last '\n' is a line as well, unless it is empty or a lone
// '\r'. The bytes are taken as they are: no encoding, no byte order mark, no trimming.

// Offsets are those of the whole text.
struct LineSurvey {
  uint64_t num_lines = 0;    // that end in the part
  uint64_t end_of_last = 0;  // the offset behind the last of them, if there are any
  // The first line that has no bytes, or nothing but the '\r' of its end, counted from the first
  // one that ends in the part; and the offset behind it.
  std::optional<uint64_t> first_empty;
  uint64_t end_of_first_empty = 0;
};

// Looks at `size` bytes, of which the first has the offset `begin`; kTextPadding readable bytes
// that hold no '\n' follow. Bits 0 and 1 of `before` tell whether a line ends at the byte before
// the last one before the part, and at the last one; where a bit is set, that byte is readable, or
// not in the text. Calls at_block(num_lines) before each 64 bytes, with the lines that have ended.
template <typename AtBlock>
LineSurvey SurveyLines(const uint8_t* text, uint64_t size, uint64_t begin, uint64_t before,
                       const AtBlock& at_block) {
  LineSurvey survey;
  for (uint64_t block = 0; block < size; block += kTextPadding) {
    at_block(survey.num_lines);
    const uint64_t ends = NewlineMask(text + block);
    // Only lines that are not longer than one byte can be empty but for a '\r'.
    uint64_t short_lines = ends & (ends << 1 | ends << 2 | before >> 1 | before);
    before = ends >> 62;
    if (ends == 0) continue;
    for (; short_lines != 0 && !survey.first_empty; short_lines &= short_lines - 1) {
      const auto bit = static_cast<uint64_t>(std::countr_zero(short_lines));
      if (!EndsEmptyLine(text + block + bit, begin + block + bit)) continue;
      const uint64_t earlier = ends & ((uint64_t{1} << bit) - 1);
      survey.first_empty = survey.num_lines + static_cast<uint64_t>(std::popcount(earlier));
      survey.end_of_first_empty = begin + block + bit + 1;
    }
    survey.num_lines += static_cast<uint64_t>(std::popcount(ends));
    survey.end_of_last =
        begin + block + kTextPadding - static_cast<uint64_t>(std::countl_zero(ends));
  }
  return survey;
}

}  // namespace tensorbundle
