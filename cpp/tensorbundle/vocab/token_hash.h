// SPDX-License-Identifier: Apache-2.0
// Hashing and comparing short byte strings without branching on their length.
//
// Both functions read past the end of a token: Vocabulary::kReadablePadding bytes must be readable
// behind it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/coding.h"

namespace tensorbundle {

// All ones in the bytes that a string of `size` bytes has in the eight-byte word at `offset`.
inline uint64_t WordMask(size_t size, size_t offset) {
  static constexpr uint64_t kMasks[9] = {0,
                                         0xff,
                                         0xffff,
                                         0xffffff,
                                         0xffffffff,
                                         0xffffffffff,
                                         0xffffffffffff,
                                         0xffffffffffffff,
                                         0xffffffffffffffff};
  return kMasks[std::min<size_t>(8, size - std::min(size, offset))];
}

// Both halves of the product, folded: the high one alone hardly knows the low bits, and the other
// way round.
inline uint64_t MultiplyMix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
}

// A 64-bit hash of a token, all of whose bits may be used. The seed makes it unpredictable which
// tokens collide, so that no vocabulary can be written that is slow to join.
class TokenHasher {
 public:
  explicit TokenHasher(uint64_t seed) : seed_(seed) {}

  static TokenHasher Random() {
    std::random_device device;
    return TokenHasher(uint64_t{device()} << 32 | device());
  }

  uint64_t operator()(std::string_view token) const {
    const uint8_t* p = AsBytes(token).data();
    size_t rest = token.size();
    uint64_t state = seed_;
    for (; rest > 16; rest -= 16, p += 16) {
      state = MultiplyMix(LoadFixed64(p) ^ state, LoadFixed64(p + 8) ^ kMixer);
    }
    const uint64_t first = LoadFixed64(p) & WordMask(rest, 0);
    const uint64_t second = LoadFixed64(p + 8) & WordMask(rest, 8);
    return MultiplyMix(MultiplyMix(first ^ state, second ^ kMixer) ^ token.size(), kFinisher);
  }

 private:
  // Fractional digits of pi: bits with no structure of their own. The last one is made odd.
  static constexpr uint64_t kMixer = 0x243f6a8885a308d3;
  static constexpr uint64_t kFinisher = 0x13198a2e03707345;

  uint64_t seed_;
};

inline bool SameToken(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  if (a.size() > 16) return std::memcmp(a.data(), b.data(), a.size()) == 0;
  const uint8_t* p = AsBytes(a).data();
  const uint8_t* q = AsBytes(b).data();
  return (((LoadFixed64(p) ^ LoadFixed64(q)) & WordMask(a.size(), 0)) |
          ((LoadFixed64(p + 8) ^ LoadFixed64(q + 8)) & WordMask(a.size(), 8))) == 0;
}

}  // namespace tensorbundle

// One cache line of a hash table: eight slots, looked at together, because which of them has the
// key is anyone's guess and a wrong guess costs a branch misprediction.
//
// A slot is 0 when free. Otherwise it has a tag in its high 24 bits, some bits of the key's hash
// that are never all 0, and a token's place in the others. Slots are taken in order, so the taken
// ones are the first of the line.

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace tensorbundle {

inline constexpr size_t kSlotsPerLine = 8;
inline constexpr int kPlaceBits = 40;
inline constexpr uint64_t kPlaceMask = (uint64_t{1} << kPlaceBits) - 1;

inline uint64_t MakeSlot(uint64_t tag, uint64_t place) { return tag << kPlaceBits | place; }
inline uint64_t PlaceOf(uint64_t slot) { return slot & kPlaceMask; }
inline uint64_t TagOf(uint64_t hash) { return (hash & (UINT64_MAX >> kPlaceBits)) | 1; }

// Slots are read and written by several threads at once, but each stands for itself: no other
// memory is published through it, hence no ordering.
inline uint64_t LoadSlot(const uint64_t* slot) { return __atomic_load_n(slot, __ATOMIC_RELAXED); }

// Writes `wanted` if `expected` is still there. Otherwise another thread was faster.
inline bool ReplaceSlot(uint64_t* slot, uint64_t expected, uint64_t wanted) {
  return __atomic_compare_exchange_n(slot, &expected, wanted, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED);
}

// Bit i stands for slot i.
struct LineMatch {
  uint32_t tagged;  // slots with the tag that was looked for
  uint32_t free;
};

#ifdef __SSE2__

// The high halves of four slots, the place bits in them cleared.
inline __m128i LoadTags(const uint64_t* slots) {
  const auto pair = [](const uint64_t* p) {
    return _mm_castsi128_ps(
        _mm_set_epi64x(static_cast<int64_t>(LoadSlot(p + 1)), static_cast<int64_t>(LoadSlot(p))));
  };
  const __m128 high = _mm_shuffle_ps(pair(slots), pair(slots + 2), _MM_SHUFFLE(3, 1, 3, 1));
  return _mm_and_si128(_mm_castps_si128(high), _mm_set1_epi32(-1 << (kPlaceBits - 32)));
}

inline LineMatch MatchLine(const uint64_t* line, uint64_t tag) {
  const __m128i wanted = _mm_set1_epi32(static_cast<int32_t>(tag << (kPlaceBits - 32)));
  const __m128i tags[2] = {LoadTags(line), LoadTags(line + 4)};
  const auto equal = [&tags](const __m128i& value) {
    const int low = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(tags[0], value)));
    const int high = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(tags[1], value)));
    return static_cast<uint32_t>(low | high << 4);
  };
  return {equal(wanted), equal(_mm_setzero_si128())};
}

#else

inline LineMatch MatchLine(const uint64_t* line, uint64_t tag) {
  LineMatch match{0, 0};
  for (size_t i = 0; i < kSlotsPerLine; ++i) {
    const uint64_t seen = LoadSlot(line + i) >> kPlaceBits;
    match.tagged |= static_cast<uint32_t>(seen == tag) << i;
    match.free |= static_cast<uint32_t>(seen == 0) << i;
  }
  return match;
}

#endif

}  // namespace tensorbundle
