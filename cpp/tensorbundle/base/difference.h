// SPDX-License-Identifier: Apache-2.0
// How the elements of two arrays differ: how many, and by how much.
//
// One pass without branches, so that compilers use vector instructions: elements that do not count
// contribute zeros. The largest difference of floating-point numbers is the largest of their bits
// as integers, which have the same order. A maximum of doubles would have to respect NaN, which
// compilers do not vectorize.
#pragma once

#include <complex>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

namespace tensorbundle {

// Which elements differ. The elements a and b are close if abs(a - b) <= atol + rtol * abs(b), if
// they are equal, or if both are NaN.
struct DifferenceRule {
  bool skips_same_bits = false;  // elements with the same bits are the same, and not measured
  bool is_exact = false;         // the others differ; otherwise those that are not close
  double rtol = 0;
  double atol = 0;
};

// Distance is a double for floating-point and complex numbers, and a uint64_t for integers.
template <typename Distance>
struct Difference {
  uint64_t num_different = 0;
  uint64_t num_not_finite = 0;  // different elements that are NaN or infinite on either side
  // The largest abs(a - b) of pairs that are finite and not skipped, also of close ones. Exact for
  // integers. Null without such a pair.
  std::optional<Distance> max_abs;
  std::optional<double> max_rel;  // the largest abs(a - b) / abs(b) of those where b is not 0
};

template <typename Element>
using DifferenceOf = Difference<std::conditional_t<std::is_integral_v<Element>, uint64_t, double>>;

// Compares elements: float, double, std::complex<double>, int64_t or uint64_t. Those that are not
// integers are compared as doubles.
// Requires: the spans have the same size.
template <typename Element>
DifferenceOf<Element> Compare(std::span<const Element> a, std::span<const Element> b,
                              const DifferenceRule& rule);

// What Compare() does on processors without AVX-512; for tests.
template <typename Element>
DifferenceOf<Element> ComparePortably(std::span<const Element> a, std::span<const Element> b,
                                      const DifferenceRule& rule);

}  // namespace tensorbundle
