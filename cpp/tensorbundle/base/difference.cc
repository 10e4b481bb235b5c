// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/difference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "tensorbundle/base/x86_features.h"

// Each loop is compiled once for every processor and once for AVX-512, which has conversions and
// comparisons of 64-bit integers. What it calls must be inlined, to be compiled with it.
#define TENSORBUNDLE_INLINE __attribute__((always_inline)) inline

namespace tensorbundle {
namespace {

constexpr int64_t kInfinityBits = std::bit_cast<int64_t>(std::numeric_limits<double>::infinity());

// The bits of abs(value). Those of infinity are above those of finite numbers, and below NaN's.
TENSORBUNDLE_INLINE int64_t MagnitudeBits(double value) {
  return std::bit_cast<int64_t>(std::fabs(value));
}

// ---- A pair of elements.

struct Pair {
  double distance;  // abs(a - b)
  double size;      // abs(b)
  int64_t rank;     // has the order of the distance, which may be exact here only
  bool other_bits;
  bool is_unequal;  // and at most one is NaN
  bool not_finite;  // one of them
};

template <typename Float>
  requires std::is_floating_point_v<Float>
TENSORBUNDLE_INLINE Pair PairOf(Float a, Float b) {
  using Bits = std::conditional_t<sizeof(Float) == sizeof(uint32_t), uint32_t, uint64_t>;
  const double x = a;
  const double y = b;
  const bool both_nan = (x != x) & (y != y);
  Pair pair;
  pair.distance = std::fabs(x - y);
  pair.size = std::fabs(y);
  pair.rank = MagnitudeBits(x - y);
  pair.other_bits = std::bit_cast<Bits>(a) != std::bit_cast<Bits>(b);
  pair.is_unequal = (x != y) & !both_nan;
  pair.not_finite = std::max(MagnitudeBits(x), MagnitudeBits(y)) >= kInfinityBits;
  return pair;
}

TENSORBUNDLE_INLINE Pair PairOf(std::complex<double> a, std::complex<double> b) {
  const auto is_nan = [](std::complex<double> z) {
    return std::isnan(z.real()) || std::isnan(z.imag());
  };
  const Pair real = PairOf(a.real(), b.real());
  const Pair imag = PairOf(a.imag(), b.imag());
  Pair pair;
  pair.distance = std::hypot(a.real() - b.real(), a.imag() - b.imag());
  pair.size = std::hypot(b.real(), b.imag());
  pair.rank = MagnitudeBits(pair.distance);
  pair.other_bits = real.other_bits || imag.other_bits;
  pair.is_unequal = a != b && !(is_nan(a) && is_nan(b));
  pair.not_finite = real.not_finite || imag.not_finite;
  return pair;
}

// Maps uint64_t to int64_t in the same order, and back.
TENSORBUNDLE_INLINE int64_t RankOf(uint64_t distance) {
  return static_cast<int64_t>(distance ^ (uint64_t{1} << 63));
}
TENSORBUNDLE_INLINE uint64_t DistanceOfRank(int64_t rank) {
  return static_cast<uint64_t>(rank) ^ (uint64_t{1} << 63);
}

template <typename Integer>
  requires std::is_integral_v<Integer>
TENSORBUNDLE_INLINE Pair PairOf(Integer a, Integer b) {
  // The subtraction modulo 2^64 is exact.
  const uint64_t distance =
      static_cast<uint64_t>(std::max(a, b)) - static_cast<uint64_t>(std::min(a, b));
  Pair pair;
  pair.distance = static_cast<double>(distance);
  pair.size = std::fabs(static_cast<double>(b));
  pair.rank = RankOf(distance);
  pair.other_bits = a != b;
  pair.is_unequal = a != b;
  pair.not_finite = false;
  return pair;
}

// ---- Arrays.

template <bool kSkipsSameBits, bool kIsExact, typename Element>
TENSORBUNDLE_INLINE DifferenceOf<Element> Loop(std::span<const Element> a,
                                               std::span<const Element> b, double rtol,
                                               double atol) {
  constexpr bool kIsInteger = std::is_integral_v<Element>;
  constexpr int64_t kNone = -1;  // less than any magnitude
  uint64_t num_different = 0;
  uint64_t num_not_finite = 0;
  uint64_t num_measured = 0;
  int64_t largest = kIsInteger ? RankOf(0) : kNone;
  int64_t largest_relative = kNone;
  for (size_t i = 0; i < a.size(); ++i) {
    const Pair pair = PairOf(a[i], b[i]);
    const bool counts = !kSkipsSameBits || pair.other_bits;
    const bool is_beyond = pair.distance > atol + rtol * pair.size;
    const bool differs = counts & (kIsExact || (pair.is_unequal & (pair.not_finite | is_beyond)));
    const bool is_measured = counts & !pair.not_finite;
    num_different += differs;
    num_not_finite += differs & pair.not_finite;
    num_measured += is_measured;
    // Integers that are not measured have the distance 0.
    const int64_t rank = kIsInteger || is_measured ? pair.rank : kNone;
    const int64_t quotient = MagnitudeBits(pair.distance / pair.size);
    const int64_t relative = (is_measured & (pair.size != 0)) ? quotient : kNone;
    largest = std::max(largest, rank);  // here: GCC does not vectorize the loop if it is above
    largest_relative = std::max(largest_relative, relative);
  }
  DifferenceOf<Element> found{num_different, num_not_finite, {}, {}};
  if (num_measured > 0) {
    if constexpr (kIsInteger) {
      found.max_abs = DistanceOfRank(largest);
    } else {
      found.max_abs = std::bit_cast<double>(largest);
    }
  }
  if (largest_relative != kNone) found.max_rel = std::bit_cast<double>(largest_relative);
  return found;
}

template <typename Element>
TENSORBUNDLE_INLINE DifferenceOf<Element> CompareAll(std::span<const Element> a,
                                                     std::span<const Element> b,
                                                     const DifferenceRule& rule) {
  if (!rule.is_exact) {
    return rule.skips_same_bits ? Loop<true, false>(a, b, rule.rtol, rule.atol)
                                : Loop<false, false>(a, b, rule.rtol, rule.atol);
  }
  return rule.skips_same_bits ? Loop<true, true>(a, b, 0, 0) : Loop<false, true>(a, b, 0, 0);
}

#if defined(__x86_64__)
template <typename Element>
__attribute__((target("avx512f"))) DifferenceOf<Element> CompareAvx512(std::span<const Element> a,
                                                                       std::span<const Element> b,
                                                                       const DifferenceRule& rule) {
  return CompareAll(a, b, rule);
}
#endif

}  // namespace

template <typename Element>
DifferenceOf<Element> ComparePortably(std::span<const Element> a, std::span<const Element> b,
                                      const DifferenceRule& rule) {
  return CompareAll(a, b, rule);
}

template <typename Element>
DifferenceOf<Element> Compare(std::span<const Element> a, std::span<const Element> b,
                              const DifferenceRule& rule) {
#if defined(__x86_64__)
  if (HasAvx512AndVpclmul()) return CompareAvx512(a, b, rule);
#endif
  return ComparePortably(a, b, rule);
}

#define TENSORBUNDLE_INSTANTIATE(Element)                                                    \
  template DifferenceOf<Element> Compare(std::span<const Element>, std::span<const Element>, \
                                         const DifferenceRule&);                             \
  template DifferenceOf<Element> ComparePortably(std::span<const Element>,                   \
                                                 std::span<const Element>, const DifferenceRule&);
TENSORBUNDLE_INSTANTIATE(float)
TENSORBUNDLE_INSTANTIATE(double)
TENSORBUNDLE_INSTANTIATE(std::complex<double>)
TENSORBUNDLE_INSTANTIATE(int64_t)
TENSORBUNDLE_INSTANTIATE(uint64_t)
#undef TENSORBUNDLE_INSTANTIATE

}  // namespace tensorbundle
