// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/crc32c.h"

#include <array>
#include <iterator>

#include "tensorbundle/base/crc32c_implementations.h"
#include "tensorbundle/base/crc32c_polynomial.h"

namespace tensorbundle::crc32c {
namespace {

struct Candidate {
  Implementation implementation;
  bool (*can_run)();
};

// Everything this build contains, best first.
constexpr Candidate kCandidates[] = {
#if defined(__x86_64__)
    {{"avx512", ExtendAvx512}, CanAvx512},
    {{"sse4.2", ExtendSse42}, CanSse42},
#endif
#if defined(__aarch64__)
    {{"armv8", ExtendArmv8}, CanArmv8},
#endif
    {{"portable", ExtendPortable}, [] { return true; }},
};

struct Runnable {
  std::array<Implementation, std::size(kCandidates)> implementations;
  size_t count = 0;
};

Runnable Detect() {
  Runnable runnable{};
  for (const Candidate& candidate : kCandidates) {
    if (candidate.can_run()) runnable.implementations[runnable.count++] = candidate.implementation;
  }
  return runnable;
}

// x has this order modulo P: it divides the order, which is prime, and x is not 1.
static_assert(PowerOfX((uint64_t{1} << 31) - 1) == kOne);

constexpr size_t kSquares =
    31;  // so x^(2^31) is x again, and the squarings of x go round in a circle

// [k] is x^(2^k).
constexpr std::array<uint32_t, kSquares> kRepeatedSquares = [] {
  std::array<uint32_t, kSquares> squares{};
  squares[0] = TimesX(kOne);
  for (size_t k = 1; k < kSquares; ++k) squares[k] = Multiply(squares[k - 1], squares[k - 1]);
  return squares;
}();

}  // namespace

std::span<const Implementation> Implementations() {
  static const Runnable runnable = Detect();
  return {runnable.implementations.data(), runnable.count};
}

const char* ActiveName() { return Implementations().front().name; }

uint32_t Extend(uint32_t crc, const void* data, size_t n) {
  return Implementations().front().extend(crc, static_cast<const uint8_t*>(data), n);
}

// With n the bits of B, the register after B is s * x^n + (what B gives from a register of 0). What
// B gives from all ones is known instead; the inversions at both ends of each CRC cancel out
// exactly that difference, and leave crc(A ++ B) = crc(A) * x^n + crc(B).
uint32_t Combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
  size_t k = 3;  // eight bits a byte
  for (; size_b != 0; size_b >>= 1) {
    if ((size_b & 1) != 0) crc_a = Multiply(crc_a, kRepeatedSquares[k]);
    k = k + 1 == kSquares ? 0 : k + 1;
  }
  return crc_a ^ crc_b;
}

}  // namespace tensorbundle::crc32c
