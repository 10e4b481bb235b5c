// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/bfloat16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tensorbundle {
namespace {

uint16_t ToBfloat16(uint32_t bits) {
  uint16_t result = 0;
  CastToBfloat16({&bits, 1}, {&result, 1});
  return result;
}

float Value(uint16_t bits) {
  uint32_t wide = 0;
  CastToFloat32({&bits, 1}, {&wide, 1});
  return std::bit_cast<float>(wide);
}

TEST(Bfloat16, EveryValueRoundTrips) {
  std::vector<uint16_t> all(1 << 16);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<uint32_t> wide(all.size());
  std::vector<uint16_t> back(all.size());
  CastToFloat32(all, wide);
  CastToBfloat16(wide, back);
  for (size_t i = 0; i < all.size(); ++i) {
    const bool is_nan = (i & 0x7FFF) > 0x7F80;
    EXPECT_EQ(back[i], is_nan ? ((i & 0x8000) | 0x7FC0) : i);
  }
}

TEST(Bfloat16, RoundsToTheNearestValue) {
  // Around each value: exactly it, just below and above the middle to the next one, and the middle.
  for (uint32_t upper = 0; upper < 0x7F80; ++upper) {
    const uint32_t bits = upper << 16;
    EXPECT_EQ(ToBfloat16(bits | 0x7FFF), upper);
    EXPECT_EQ(ToBfloat16(bits | 0x8001), upper + 1);
    EXPECT_EQ(ToBfloat16(bits | 0x8000), upper + (upper & 1)) << "a tie goes to the even one";
    EXPECT_EQ(ToBfloat16(0x8000'0000 | bits | 0x8001), 0x8000 | (upper + 1));
  }
}

TEST(Bfloat16, SpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(Value(ToBfloat16(std::bit_cast<uint32_t>(std::numeric_limits<float>::max()))),
            infinity);
  EXPECT_EQ(Value(ToBfloat16(std::bit_cast<uint32_t>(-infinity))), -infinity);
  EXPECT_EQ(ToBfloat16(0x7F80'0001), 0x7FC0) << "a signaling NaN";
  EXPECT_EQ(ToBfloat16(0xFFFF'FFFF), 0xFFC0);
  EXPECT_EQ(ToBfloat16(0x8000'0000), 0x8000);
  EXPECT_TRUE(std::isnan(Value(0x7FC0)));
}

}  // namespace
}  // namespace tensorbundle
