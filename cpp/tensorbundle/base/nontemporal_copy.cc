// SPDX-License-Identifier: Apache-2.0
// Nontemporal copies with 64-byte stores. A store of a whole cache line needs no write-combining
// buffer, and goes to memory at once.
#include "tensorbundle/base/nontemporal_copy.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "tensorbundle/base/x86_features.h"

// Compiled for this extension regardless of the build flags; NontemporalCopyWide() guards the call.
#define TENSORBUNDLE_STREAM_AVX512 __attribute__((target("avx512f")))

namespace tensorbundle {
namespace {

// Consecutive copies into one array all have the same misalignment: the end of one and the
// beginning of the next fill a cache line together.
TENSORBUNDLE_STREAM_AVX512 void CopyAvx512(uint8_t* out, const uint8_t* in, uint64_t size) {
  constexpr uint64_t kSmall = sizeof(__m128i);
  const uint64_t head = -reinterpret_cast<uintptr_t>(out) % kCacheLine;
  const auto copy_small = [&](uint64_t begin, uint64_t end) {
    for (uint64_t at = begin; at < end; at += kSmall) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + at),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + at)));
    }
  };
  copy_small(0, head);
  uint64_t at = head;
  for (; at + kCacheLine <= size; at += kCacheLine) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + at), _mm512_loadu_si512(in + at));
  }
  copy_small(at, size);
}

}  // namespace

// Earlier processors with AVX-512 lower their clock rate for it; they lack VPCLMULQDQ.
void NontemporalCopyWide(uint8_t* out, const uint8_t* in, uint64_t size) {
  HasAvx512AndVpclmul() ? CopyAvx512(out, in, size) : NontemporalCopySse2(out, in, size);
}

}  // namespace tensorbundle

#endif  // defined(__x86_64__)
