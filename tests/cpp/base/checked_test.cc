// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/checked.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace tensorbundle {
namespace {

using Dims = std::vector<int64_t>;

TEST(Checked, OverflowGivesNothing) {
  EXPECT_EQ(CheckedAdd(UINT64_MAX, 0), UINT64_MAX);
  EXPECT_EQ(CheckedAdd(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(CheckedMul(uint64_t{1} << 32, uint64_t{1} << 31), uint64_t{1} << 63);
  EXPECT_EQ(CheckedMul(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
  EXPECT_EQ(CheckedMul(0, UINT64_MAX), 0U);
}

TEST(Checked, RangeFits) {
  EXPECT_TRUE(RangeFits(0, 0, 0));
  EXPECT_TRUE(RangeFits(10, 0, 10));
  EXPECT_TRUE(RangeFits(3, 7, 10));
  EXPECT_FALSE(RangeFits(3, 8, 10));
  EXPECT_FALSE(RangeFits(11, 0, 10));
  EXPECT_FALSE(RangeFits(5, UINT64_MAX, 10));  // the sum would wrap to 4
  EXPECT_FALSE(RangeFits(UINT64_MAX, 1, UINT64_MAX));
}

TEST(Checked, Volume) {
  EXPECT_EQ(CheckedVolume(Dims{}), 1U);
  EXPECT_EQ(CheckedVolume(Dims{3, 4}), 12U);
  EXPECT_EQ(CheckedVolume(Dims{3, 0, 4}), 0U);
  EXPECT_EQ(CheckedVolume(Dims{3, -1}), std::nullopt);
  EXPECT_EQ(CheckedVolume(Dims{0, -1}), std::nullopt);
  EXPECT_EQ(CheckedVolume(Dims{INT64_MAX}), static_cast<uint64_t>(INT64_MAX));
  EXPECT_EQ(CheckedVolume(Dims{int64_t{1} << 32, int64_t{1} << 31}), std::nullopt);
  EXPECT_EQ(CheckedVolume(Dims{int64_t{1} << 32, int64_t{1} << 32, int64_t{1} << 32}),
            std::nullopt);
}

TEST(Checked, OverflowIsDetectedBesideAZero) {
  EXPECT_EQ(CheckedVolume(Dims{0, INT64_MAX, 2}), std::nullopt);
  EXPECT_EQ(CheckedVolume(Dims{INT64_MAX, 2, 0}), std::nullopt);
  EXPECT_EQ(CheckedVolume(Dims{INT64_MAX, 0}), 0U);
}

}  // namespace
}  // namespace tensorbundle
