// SPDX-License-Identifier: Apache-2.0
// A copy that bypasses the caches, for output that is larger than they are. An ordinary copy would
// first read the destination into the caches, and evict data that is still needed.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace tensorbundle {

inline constexpr uint64_t kCacheLine = 64;

#if defined(__x86_64__)

// Copies with 16-byte stores. Requires: `out` is a multiple of 16 and `size` of kCacheLine.
inline void NontemporalCopySse2(uint8_t* out, const uint8_t* in, uint64_t size) {
  for (uint64_t at = 0; at < size; at += kCacheLine) {
    const auto* source = reinterpret_cast<const __m128i*>(in + at);
    auto* destination = reinterpret_cast<__m128i*>(out + at);
    const __m128i a = _mm_loadu_si128(source);
    const __m128i b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2);
    const __m128i d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(destination, a);
    _mm_stream_si128(destination + 1, b);
    _mm_stream_si128(destination + 2, c);
    _mm_stream_si128(destination + 3, d);
  }
}

// The same with the widest stores that are fast on this processor.
void NontemporalCopyWide(uint8_t* out, const uint8_t* in, uint64_t size);

// Shorter copies do not repay the call of NontemporalCopyWide.
inline constexpr uint64_t kMinWideCopy = 512;

#endif

// Copies `size` bytes. Other threads see them after FenceNontemporalStores().
inline void NontemporalCopy(uint8_t* out, const uint8_t* in, uint64_t size) {
#if defined(__x86_64__)
  if (reinterpret_cast<uintptr_t>(out) % sizeof(__m128i) == 0 && size % kCacheLine == 0) {
    size < kMinWideCopy ? NontemporalCopySse2(out, in, size) : NontemporalCopyWide(out, in, size);
    return;
  }
#endif
  std::memcpy(out, in, size);
}

inline void FenceNontemporalStores() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace tensorbundle
