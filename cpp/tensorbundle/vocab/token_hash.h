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
