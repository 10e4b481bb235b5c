// SPDX-License-Identifier: Apache-2.0
// The implementations behind crc32c.h, and their arithmetic: polynomials over GF(2) modulo the
// generator P of CRC-32C.
//
// A polynomial of degree below 32 is a uint32_t whose bit 31 - i is the coefficient of x^i
// ("reflected"), because the bits of a message start with the low bit of its first byte. A message
// M of n bits changes the register from s to s * x^n + M * x^32 (mod P). A CRC is the inverted
// register; the register starts with all bits set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensorbundle/base/x86_features.h"

namespace tensorbundle::crc32c {

// P = 0x1'1EDC'6F41 (Castagnoli 1993, RFC 3720), without its x^32 and reflected.
inline constexpr uint32_t kPolynomial = 0x82F63B78;

inline constexpr uint32_t kOne = uint32_t{1} << 31;  // x^0

// All ones if the lowest bit of `a` is set, else 0. Coefficients are as good as random: a branch on
// one of them is mispredicted every other time.
constexpr uint32_t MaskOfLowBit(uint32_t a) { return 0 - (a & 1); }

constexpr uint32_t TimesX(uint32_t a) { return (a >> 1) ^ (kPolynomial & MaskOfLowBit(a)); }

constexpr uint32_t Multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int degree = 0; degree < 32; ++degree) {
    product ^= a & MaskOfLowBit(b >> (31 - degree));
    a = TimesX(a);
  }
  return product;
}

// x^n mod P, by repeated squaring.
constexpr uint32_t PowerOfX(uint64_t n) {
  uint32_t power = kOne;
  for (uint32_t square = TimesX(kOne); n != 0; n >>= 1) {
    if ((n & 1) != 0) power = Multiply(power, square);
    square = Multiply(square, square);
  }
  return power;
}

static_assert(PowerOfX(32) == kPolynomial, "x^32 is the rest of P");
static_assert(PowerOfX(64) == Multiply(PowerOfX(41), PowerOfX(23)), "powers add up");

// Each Extend* function implements crc32c::Extend(). Fastest() and CanArmv8() say which of them may
// be called: other processors lack their instructions.
uint32_t ExtendPortable(uint32_t crc, const uint8_t* data, size_t n);

#if defined(__x86_64__)
uint32_t ExtendSse42(uint32_t crc, const uint8_t* data, size_t n);
uint32_t ExtendAvx512(uint32_t crc, const uint8_t* data, size_t n);

// Returns the place of the fastest one that a processor can run: 0 is AVX-512, 2 is portable. It
// can run those that follow, too.
uint64_t Fastest(const X86Registers& registers);
#endif

#if defined(__aarch64__)
bool CanArmv8();
uint32_t ExtendArmv8(uint32_t crc, const uint8_t* data, size_t n);
#endif

}  // namespace tensorbundle::crc32c
