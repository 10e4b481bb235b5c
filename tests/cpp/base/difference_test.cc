// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/difference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace tensorbundle {
namespace {

using Complex = std::complex<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// ---- The definition, one element at a time.

bool IsNan(double x) { return std::isnan(x); }
bool IsNan(Complex z) { return std::isnan(z.real()) || std::isnan(z.imag()); }
bool IsFinite(double x) { return std::isfinite(x); }
bool IsFinite(Complex z) { return std::isfinite(z.real()) && std::isfinite(z.imag()); }

template <typename Element>
auto Distance(Element a, Element b) {
  if constexpr (std::is_integral_v<Element>) {
    return a > b ? uint64_t(a) - uint64_t(b) : uint64_t(b) - uint64_t(a);
  } else if constexpr (std::is_same_v<Element, Complex>) {
    return std::abs(a - b);
  } else {
    return std::abs(double{a} - double{b});
  }
}

template <typename Element>
double Size(Element a) {
  if constexpr (std::is_same_v<Element, Complex>) {
    return std::abs(a);
  } else {
    return std::abs(static_cast<double>(a));
  }
}

template <typename Element>
auto Expected(const std::vector<Element>& a, const std::vector<Element>& b,
              const DifferenceRule& rule) {
  decltype(Compare(std::span<const Element>(a), std::span<const Element>(b), rule)) expected;
  for (size_t i = 0; i < a.size(); ++i) {
    if (rule.skips_same_bits && std::memcmp(&a[i], &b[i], sizeof(Element)) == 0) continue;
    bool is_finite = true;
    bool both_nan = false;
    if constexpr (!std::is_integral_v<Element>) {
      is_finite = IsFinite(a[i]) && IsFinite(b[i]);
      both_nan = IsNan(a[i]) && IsNan(b[i]);
    }
    const auto distance = Distance(a[i], b[i]);
    const double size = Size(b[i]);
    const bool is_close = is_finite ? static_cast<double>(distance) <= rule.atol + rule.rtol * size
                                    : a[i] == b[i] || both_nan;
    if (rule.is_exact || !is_close) {
      ++expected.num_different;
      if (!is_finite) ++expected.num_not_finite;
    }
    if (!is_finite) continue;
    expected.max_abs = std::max(expected.max_abs.value_or(0), distance);
    if (size == 0) continue;
    const double relative = static_cast<double>(distance) / size;
    expected.max_rel = std::max(expected.max_rel.value_or(0), relative);
  }
  return expected;
}

template <typename Element>
void ExpectDefinition(const std::vector<Element>& a, const std::vector<Element>& b) {
  for (const DifferenceRule& rule :
       {DifferenceRule{true, true}, DifferenceRule{false, true}, DifferenceRule{true, false},
        DifferenceRule{false, false}, DifferenceRule{true, false, 0.25, 0.5},
        DifferenceRule{false, false, 0.5, 0}, DifferenceRule{false, false, 0, 2},
        DifferenceRule{false, false, 0.1, 0.3}}) {
    const auto expected = Expected(a, b, rule);
    const auto check = [&](const auto& found) {
      EXPECT_EQ(found.num_different, expected.num_different);
      EXPECT_EQ(found.num_not_finite, expected.num_not_finite);
      EXPECT_EQ(found.max_abs, expected.max_abs);
      EXPECT_EQ(found.max_rel, expected.max_rel);
    };
    const std::span<const Element> left = a;
    const std::span<const Element> right = b;
    check(Compare(left, right, rule));
    check(ComparePortably(left, right, rule));
  }
}

// ---- Arrays of special and ordinary elements.

template <typename Element>
std::vector<Element> Values() {
  using Limits = std::numeric_limits<Element>;
  if constexpr (std::is_integral_v<Element>) {
    return {0, 1, 2, 7, Limits::max(), Limits::max() - 1, Limits::min(), Limits::min() + 1};
  } else if constexpr (std::is_same_v<Element, Complex>) {
    return {{0, 0},         {-0.0, 0},       {3, -4},
            {3, 4},         {kNan, 1},       {1, kNan},
            {kInfinity, 0}, {0, -kInfinity}, {kNan, kInfinity},
            {1e308, 1e308}, {-1e308, -1e3},  {5e-324, 5e-324}};
  } else {
    return {0,
            Element(-0.0),
            1,
            2,
            -3.5,
            Limits::max(),
            Limits::lowest(),
            Limits::min(),
            Limits::denorm_min(),
            Limits::infinity(),
            -Limits::infinity(),
            Limits::quiet_NaN(),
            -Limits::quiet_NaN()};
  }
}

template <typename Element>
class DifferenceTest : public testing::Test {};

using Elements = testing::Types<float, double, Complex, int64_t, uint64_t>;
TYPED_TEST_SUITE(DifferenceTest, Elements);

TYPED_TEST(DifferenceTest, EveryPairOfSpecialValues) {
  for (const TypeParam a : Values<TypeParam>()) {
    for (const TypeParam b : Values<TypeParam>()) {
      ExpectDefinition<TypeParam>({a}, {b});
      ExpectDefinition(std::vector<TypeParam>(19, a), std::vector<TypeParam>(19, b));
    }
  }
}

TYPED_TEST(DifferenceTest, ArraysOfAnySize) {
  std::mt19937 random(5);
  const auto small = [&] { return static_cast<TypeParam>(static_cast<int>(random() % 9)); };
  const std::vector<TypeParam> values = Values<TypeParam>();
  for (size_t size = 0; size < 80; ++size) {
    std::vector<TypeParam> a(size);
    std::vector<TypeParam> b(size);
    for (size_t i = 0; i < size; ++i) {
      a[i] = random() % 4 == 0 ? values[random() % values.size()] : small();
      b[i] = random() % 2 == 0 ? a[i] : small();
    }
    ExpectDefinition(a, b);
  }
}

// The only element that differs is found at each position: in a vector register and after them.
TYPED_TEST(DifferenceTest, EveryPosition) {
  for (size_t at = 0; at < 41; ++at) {
    const std::vector<TypeParam> a(41, TypeParam(2));
    std::vector<TypeParam> b = a;
    b[at] = TypeParam(4);
    ExpectDefinition(a, b);
  }
}

// A fused multiplication and addition rounds once, and finds other elements close.
TEST(DifferenceTest, NearTheTolerance) {
  std::mt19937 random(3);
  std::vector<double> a(4096);
  std::vector<double> b(4096);
  for (size_t i = 0; i < a.size(); ++i) {
    b[i] = static_cast<double>(random()) / 1e9;
    a[i] = b[i] + (0.3 + 0.1 * b[i]);
  }
  ExpectDefinition(a, b);
}

TEST(DifferenceTest, BitsOfNan) {
  const std::vector<float> a = {std::bit_cast<float>(0x7fc00000U)};
  const std::vector<float> b = {std::bit_cast<float>(0x7fc00001U)};
  ExpectDefinition(a, b);
  const auto found = Compare(std::span<const float>(a), std::span<const float>(b),
                             {.skips_same_bits = true, .is_exact = true});
  EXPECT_EQ(found.num_different, 1U);
  EXPECT_EQ(found.max_abs, std::nullopt);
}

TEST(DifferenceTest, IntegersAreExact) {
  const std::vector<int64_t> a = {std::numeric_limits<int64_t>::min()};
  const std::vector<int64_t> b = {std::numeric_limits<int64_t>::max()};
  const auto found = Compare(std::span<const int64_t>(a), std::span<const int64_t>(b), {});
  EXPECT_EQ(found.max_abs, std::numeric_limits<uint64_t>::max());
}

}  // namespace
}  // namespace tensorbundle
