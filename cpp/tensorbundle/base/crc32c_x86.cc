// SPDX-License-Identifier: Apache-2.0
// CRC-32C with the instructions of x86-64. Empty on other processors.
#include "tensorbundle/base/crc32c_internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/x86_features.h"

// Compiled for these extensions regardless of the build flags; Can*() guards the calls. Newer
// versions of Clang do not count the instruction crc32 as a part of SSE4.2.
#define TENSORBUNDLE_SSE42 __attribute__((target("sse4.2,crc32,pclmul")))
#define TENSORBUNDLE_AVX512 __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2,crc32")))

namespace tensorbundle::crc32c {
namespace {

// ---- The crc32 instruction. It takes three cycles and one can start each cycle, so three streams
// run side by side and are joined at the end.

constexpr size_t kWord = 8;             // bytes per crc32 instruction
constexpr size_t kMinInterleaved = 72;  // below this, joining costs more than it gains

// Joining costs 1% of a stream this long. Outside the caches length pays twice: streams of half a
// page of 4 KiB ran at two thirds of the speed on Sapphire Rapids, longer ones than this no faster.
constexpr size_t kMaxStreamWords = 512;

// [w] moves a register past w words: it is x^(64 w - 33). The carry-less product of two reflected
// 32-bit polynomials comes out with one factor of x missing when read as a 64-bit message, and the
// instruction that reduces it multiplies by x^32: 64 w = (64 w - 33) + 1 + 32.
constexpr std::array<uint32_t, 2 * kMaxStreamWords + 1> kSkipWords = [] {
  std::array<uint32_t, 2 * kMaxStreamWords + 1> skip{};
  constexpr uint32_t kOneWord = PowerOfX(64);
  skip[1] = PowerOfX(64 - 33);
  for (size_t w = 2; w < skip.size(); ++w) skip[w] = Multiply(skip[w - 1], kOneWord);
  return skip;
}();

TENSORBUNDLE_SSE42 inline uint64_t SkipProduct(uint64_t state, size_t words) {
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(state)),
                                               _mm_cvtsi64_si128(kSkipWords[words]), 0x00);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(product));
}

// The register after three adjacent streams of `words` words each.
TENSORBUNDLE_SSE42 inline uint64_t ThreeStreams(uint64_t state, const uint8_t* data, size_t words) {
  const size_t stride = kWord * words;
  uint64_t first = state;
  uint64_t second = 0;
  uint64_t third = 0;
  for (const uint8_t* end = data + stride; data != end; data += kWord) {
    first = _mm_crc32_u64(first, LoadFixed64(data));
    second = _mm_crc32_u64(second, LoadFixed64(data + stride));
    third = _mm_crc32_u64(third, LoadFixed64(data + 2 * stride));
  }
  return third ^ _mm_crc32_u64(0, SkipProduct(first, 2 * words) ^ SkipProduct(second, words));
}

// ---- Folding. Sixteen bytes are a polynomial L * x^64 + H. What they contribute D bits further on
// is L * x^(D + 64) + H * x^D, and modulo P those two powers of x have degree below 32: two
// carry-less products and two additions move the lane, four lanes at once in 512 bits.

struct Fold {
  uint64_t low;
  uint64_t high;
};

// The constants for D = `bits`. The product of two reflected 64-bit polynomials lacks one factor of
// x when read as a 128-bit one, hence the exponents are less by one; the shift puts degree 0 at
// bit 63.
constexpr Fold FoldBy(uint64_t bits) {
  return {uint64_t{PowerOfX(bits + 64 - 1)} << 32, uint64_t{PowerOfX(bits - 1)} << 32};
}

constexpr uint64_t kVectorBits = 512;
constexpr size_t kVector = kVectorBits / 8;
constexpr size_t kVectors = 8;  // chains side by side, to hide the latency of a multiplication
constexpr size_t kStripe = kVectors * kVector;
constexpr size_t kMinFolded = kStripe;

TENSORBUNDLE_AVX512 inline __m512i Load(const uint8_t* data) { return _mm512_loadu_si512(data); }

TENSORBUNDLE_AVX512 inline __m512i FourTimes(Fold fold) {
  const int64_t low = static_cast<int64_t>(fold.low);
  const int64_t high = static_cast<int64_t>(fold.high);
  return _mm512_set_epi64(high, low, high, low, high, low, high, low);
}

// Moves `lanes` by kBits and adds `later`.
template <uint64_t kBits>
TENSORBUNDLE_AVX512 inline __m512i FoldOnto(__m512i lanes, __m512i later) {
  constexpr Fold kFold = FoldBy(kBits);
  const __m512i factors = FourTimes(kFold);
  constexpr int kXorOfThree = 0x96;  // truth table of a ^ b ^ c
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(lanes, factors, 0x00),
                                   _mm512_clmulepi64_epi128(lanes, factors, 0x11), later,
                                   kXorOfThree);
}

// The register after `stripes` (at least one) times kStripe bytes.
TENSORBUNDLE_AVX512 uint32_t FoldStripes(uint32_t state, const uint8_t* data, size_t stripes) {
  const __m128i start = _mm_cvtsi32_si128(static_cast<int32_t>(state));
  __m512i a = _mm512_xor_si512(Load(data), _mm512_zextsi128_si512(start));
  __m512i b = Load(data + 1 * kVector);
  __m512i c = Load(data + 2 * kVector);
  __m512i d = Load(data + 3 * kVector);
  __m512i e = Load(data + 4 * kVector);
  __m512i f = Load(data + 5 * kVector);
  __m512i g = Load(data + 6 * kVector);
  __m512i h = Load(data + 7 * kVector);
  for (data += kStripe; --stripes != 0; data += kStripe) {
    a = FoldOnto<kVectors * kVectorBits>(a, Load(data));
    b = FoldOnto<kVectors * kVectorBits>(b, Load(data + 1 * kVector));
    c = FoldOnto<kVectors * kVectorBits>(c, Load(data + 2 * kVector));
    d = FoldOnto<kVectors * kVectorBits>(d, Load(data + 3 * kVector));
    e = FoldOnto<kVectors * kVectorBits>(e, Load(data + 4 * kVector));
    f = FoldOnto<kVectors * kVectorBits>(f, Load(data + 5 * kVector));
    g = FoldOnto<kVectors * kVectorBits>(g, Load(data + 6 * kVector));
    h = FoldOnto<kVectors * kVectorBits>(h, Load(data + 7 * kVector));
  }
  e = FoldOnto<4 * kVectorBits>(a, e);
  f = FoldOnto<4 * kVectorBits>(b, f);
  g = FoldOnto<4 * kVectorBits>(c, g);
  h = FoldOnto<4 * kVectorBits>(d, h);
  g = FoldOnto<2 * kVectorBits>(e, g);
  h = FoldOnto<2 * kVectorBits>(f, h);
  h = FoldOnto<1 * kVectorBits>(g, h);
  // `h` is now a message of one vector that leads to the same register, starting from zero.
  alignas(kVector) uint64_t words[kVector / kWord];
  _mm512_store_si512(words, h);
  uint64_t folded = 0;
  for (const uint64_t word : words) folded = _mm_crc32_u64(folded, word);
  return static_cast<uint32_t>(folded);
}

}  // namespace

TENSORBUNDLE_SSE42 uint32_t ExtendSse42(uint32_t crc, const uint8_t* data, size_t n) {
  uint64_t state = ~crc;
  while (n >= kMinInterleaved) {
    const size_t words = std::min(n / (3 * kWord), kMaxStreamWords);
    state = ThreeStreams(state, data, words);
    data += 3 * kWord * words;
    n -= 3 * kWord * words;
  }
  for (; n >= kWord; data += kWord, n -= kWord) state = _mm_crc32_u64(state, LoadFixed64(data));
  uint32_t tail = static_cast<uint32_t>(state);
  for (; n != 0; ++data, --n) tail = _mm_crc32_u8(tail, *data);
  return ~tail;
}

uint64_t Fastest(const X86Registers& registers) {
  if (!HasSse42AndPclmul(registers)) return 2;
  return HasAvx512AndVpclmul(registers) ? 0 : 1;
}

uint32_t ExtendAvx512(uint32_t crc, const uint8_t* data, size_t n) {
  if (n < kMinFolded) return ExtendSse42(crc, data, n);
  const size_t stripes = n / kStripe;
  crc = ~FoldStripes(~crc, data, stripes);
  return ExtendSse42(crc, data + stripes * kStripe, n % kStripe);
}

}  // namespace tensorbundle::crc32c

#endif  // defined(__x86_64__)
