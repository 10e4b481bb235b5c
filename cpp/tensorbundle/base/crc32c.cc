// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/crc32c.h"

#include <array>
#include <span>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c_internal.h"
#include "tensorbundle/base/fork_lock.h"

namespace tensorbundle::crc32c {
namespace {

// The portable implementation is slicing by 16: it processes sixteen bytes at once, each with a
// table of its own.
constexpr size_t kSlice = 16;

// [k][b] is the register after byte b and k zero bytes, starting from a register of zero.
using Tables = std::array<std::array<uint32_t, 256>, kSlice>;

constexpr Tables kTables = [] {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit) state = TimesX(state);
    tables[0][byte] = state;
  }
  for (size_t k = 1; k < kSlice; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}();

// Processes the eight bytes of `word`, which `after` more bytes follow.
inline uint32_t Slice8(uint64_t word, size_t after) {
  return kTables[after + 7][word & 0xff] ^ kTables[after + 6][(word >> 8) & 0xff] ^
         kTables[after + 5][(word >> 16) & 0xff] ^ kTables[after + 4][(word >> 24) & 0xff] ^
         kTables[after + 3][(word >> 32) & 0xff] ^ kTables[after + 2][(word >> 40) & 0xff] ^
         kTables[after + 1][(word >> 48) & 0xff] ^ kTables[after][word >> 56];
}

// All implementations in this build, fastest first.
constexpr Implementation kImplementations[] = {
#if defined(__x86_64__)
    {"avx512", ExtendAvx512},
    {"sse4.2", ExtendSse42},
#endif
#if defined(__aarch64__)
    {"armv8", ExtendArmv8},
#endif
    {"portable", ExtendPortable},
};

// Returns the place of the fastest one that this processor can run.
uint64_t FastestHere() {
#if defined(__x86_64__)
  return Fastest(ReadX86Registers());
#elif defined(__aarch64__)
  return CanArmv8() ? 0 : 1;
#else
  return 0;
#endif
}

// x has this order modulo P: it divides the order, which is prime, and x is not 1.
static_assert(PowerOfX((uint64_t{1} << 31) - 1) == kOne);

constexpr size_t kSquares = 31;  // so x^(2^31) is x again: repeated squaring is periodic

// [k] is x^(2^k).
constexpr std::array<uint32_t, kSquares> kRepeatedSquares = [] {
  std::array<uint32_t, kSquares> squares{};
  squares[0] = TimesX(kOne);
  for (size_t k = 1; k < kSquares; ++k) squares[k] = Multiply(squares[k - 1], squares[k - 1]);
  return squares;
}();

}  // namespace

uint32_t ExtendPortable(uint32_t crc, const uint8_t* data, size_t n) {
  uint32_t state = ~crc;
  for (; n >= kSlice; data += kSlice, n -= kSlice) {
    // The register adds onto the first four bytes: s * x^128 = (s * x^96) * x^32.
    state = Slice8(LoadFixed64(data) ^ state, 8) ^ Slice8(LoadFixed64(data + 8), 0);
  }
  for (; n != 0; ++data, --n) state = (state >> 8) ^ kTables[0][(state ^ *data) & 0xff];
  return ~state;
}

std::span<const Implementation> Implementations() {
  constinit static FirstResult fastest;
  return std::span(kImplementations).subspan(fastest.Get(&FastestHere));
}

const char* ActiveName() { return Implementations().front().name; }

uint32_t Extend(uint32_t crc, const void* data, size_t n) {
  return Implementations().front().extend(crc, static_cast<const uint8_t*>(data), n);
}

// Let n be the number of bits of B, and R(s) the register after B that starts from s. The register
// is linear: R(s) = s * x^n + R(0). crc(B) is computed from R(all ones), not from R(0). The
// inversions at both ends of each CRC cancel that difference: crc(A ++ B) = crc(A) * x^n + crc(B).
uint32_t Combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
  size_t k = 3;  // eight bits a byte
  for (; size_b != 0; size_b >>= 1) {
    if ((size_b & 1) != 0) crc_a = Multiply(crc_a, kRepeatedSquares[k]);
    k = k + 1 == kSquares ? 0 : k + 1;
  }
  return crc_a ^ crc_b;
}

}  // namespace tensorbundle::crc32c
