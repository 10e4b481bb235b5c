// SPDX-License-Identifier: Apache-2.0
// Hashing and comparison of short byte strings without branches on their length, and the slots of a
// hash table, eight to a cache line, compared together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/fork_lock.h"

namespace tensorbundle {

// ---- Tokens. The hash and the comparison read past the end of a token.
// Requires: Vocabulary::kReadablePadding readable bytes follow each token.

// Returns a word that has all ones in the bytes that a string of `size` bytes has in
// the eight-byte word at `offset`.
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

// Returns the exclusive or of both halves of the product: the high half hardly depends on the low
// bits, and vice versa.
inline uint64_t MultiplyMix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product >> 64) ^ static_cast<uint64_t>(product);
}

// A 64-bit hash of a token with 64 good bits. The seed makes collisions unpredictable, so that no
// vocabulary can be constructed to make a join slow.
class TokenHasher {
 public:
  explicit TokenHasher(uint64_t seed) : seed_(seed) {}

  // Uses the random seed of this process. Drawing one takes longer than joining a hundred tokens:
  // std::random_device asks for the processor's features, which a virtual machine emulates.
  static TokenHasher Random() {
    constinit static FirstResult seed;
    return TokenHasher(seed.Get([] {
      std::random_device device;
      return (uint64_t{device()} << 32 | device()) >> 1;
    }));
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
  // Fractional digits of pi: arbitrary bits. The last bit is set, to make the numbers odd.
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

// ---- Slots. One cache line of the table has eight slots, which are compared together: comparing
// them one by one would cost branch mispredictions.
//
//   slot = 0 (free)  |  24 bits tag (bits of the hash, never all 0), 40 bits offset of the token
//
// Slots are taken in order: the free slots of a line follow the taken ones.

inline constexpr size_t kSlotsPerLine = 8;
inline constexpr int kOffsetBits = 40;
inline constexpr uint64_t kOffsetMask = (uint64_t{1} << kOffsetBits) - 1;

inline uint64_t MakeSlot(uint64_t tag, uint64_t offset) { return tag << kOffsetBits | offset; }
inline uint64_t OffsetOf(uint64_t slot) { return slot & kOffsetMask; }
inline uint64_t TagOf(uint64_t hash) { return (hash & (UINT64_MAX >> kOffsetBits)) | 1; }

// Several threads read and write slots at once. No memory is published through a slot, so relaxed
// ordering is enough.
inline uint64_t LoadSlot(const uint64_t* slot) { return __atomic_load_n(slot, __ATOMIC_RELAXED); }

// Writes `wanted` if the slot still has `expected`. Returns false if another thread has changed it.
inline bool ReplaceSlot(uint64_t* slot, uint64_t expected, uint64_t wanted) {
  return __atomic_compare_exchange_n(slot, &expected, wanted, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED);
}

// Bit i stands for slot i.
struct LineMatch {
  uint32_t tagged;  // slots that have the tag
  uint32_t free;
};

#ifdef __SSE2__

// Loads the high halves of four slots, with the offset bits cleared.
inline __m128i LoadTags(const uint64_t* slots) {
  const auto pair = [](const uint64_t* p) {
    return _mm_castsi128_ps(
        _mm_set_epi64x(static_cast<int64_t>(LoadSlot(p + 1)), static_cast<int64_t>(LoadSlot(p))));
  };
  const __m128 high = _mm_shuffle_ps(pair(slots), pair(slots + 2), _MM_SHUFFLE(3, 1, 3, 1));
  return _mm_and_si128(_mm_castps_si128(high), _mm_set1_epi32(-1 << (kOffsetBits - 32)));
}

inline LineMatch MatchLine(const uint64_t* line, uint64_t tag) {
  const __m128i wanted = _mm_set1_epi32(static_cast<int32_t>(tag << (kOffsetBits - 32)));
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
    const uint64_t seen = LoadSlot(line + i) >> kOffsetBits;
    match.tagged |= static_cast<uint32_t>(seen == tag) << i;
    match.free |= static_cast<uint32_t>(seen == 0) << i;
  }
  return match;
}

#endif

}  // namespace tensorbundle
