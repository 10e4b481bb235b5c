// SPDX-License-Identifier: Apache-2.0
// A vectorized scan for the ends of lines, 64 bytes at a time.
//
// Lines end in '\n'. The bytes after the last '\n' are a line as well, unless there are none or
// they are a single '\r'. There is no encoding, no byte order mark and no trimming.
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

// The number of zero bytes that must follow a text, because it is scanned in steps of this size.
inline constexpr size_t kTextPadding = 64;

#ifdef __SSE2__

// Returns a mask of 64 bits: bit i is set if p[i] is '\n'.
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
    // Sets the high bit of each byte that is '\n'. The sum never carries into the next byte.
    const uint64_t other = LoadFixed64(p + 8 * i) ^ (kLow * '\n');
    const uint64_t found = ~(((other & (kLow * 0x7f)) + kLow * 0x7f) | other) & (kLow * 0x80);
    mask |= (found * kGather >> 56) << (8 * i);
  }
  return mask;
}

#endif

// Whether the line that ends with the '\n' at `end` is empty or a single '\r'. `before` is the
// number of bytes of the text before `end`. Requires: min(before, 2) of them are readable.
inline bool EndsEmptyLine(const uint8_t* end, uint64_t before) {
  if (before == 0 || end[-1] == '\n') return true;
  return end[-1] == '\r' && (before == 1 || end[-2] == '\n');
}

// A summary of the lines of one part of a text, from which the lines of the whole text can be
// numbered. Offsets are relative to the whole text.
struct LineSurvey {
  uint64_t num_lines = 0;    // the lines that end in the part
  uint64_t end_of_last = 0;  // the offset after the last of them, if there are any
  // The first line that is empty or a single '\r', counted from the first line that ends in the
  // part, and the offset after it.
  std::optional<uint64_t> first_empty;
  uint64_t end_of_first_empty = 0;
};

// Summarizes the `size` bytes of a text that start at offset `begin`. Bits 0 and 1 of `before` tell
// whether a line ends two bytes and one byte before `text`. Calls at_block(num_lines) before each
// block of 64 bytes, with the number of lines that have ended so far.
// Requires: kTextPadding readable bytes without '\n' follow the part. A byte before the part whose
// bit in `before` is set is readable or not in the text.
template <typename AtBlock>
LineSurvey SurveyLines(const uint8_t* text, uint64_t size, uint64_t begin, uint64_t before,
                       const AtBlock& at_block) {
  LineSurvey survey;
  for (uint64_t block = 0; block < size; block += kTextPadding) {
    at_block(survey.num_lines);
    const uint64_t ends = NewlineMask(text + block);
    // Only lines of at most one byte can be empty or a single '\r'.
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
