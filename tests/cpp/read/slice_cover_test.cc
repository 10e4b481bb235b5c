// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/slice_cover.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "random_boxes.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::CatalogOf;
using testing::ForEachElement;
using testing::Random;
using testing::RandomTiling;

// A pinwheel: no straight cut divides it.
const std::vector<Box> kPinwheel = {
    {{0, 1}, {0, 2}}, {{0, 2}, {2, 1}}, {{2, 1}, {1, 2}}, {{1, 2}, {0, 1}}, {{1, 1}, {1, 1}}};

// Returns the message of FindOverlaps() for a box, "" if it is covered.
std::string ErrorOf(const std::vector<int64_t>& shape, const std::vector<Box>& slices,
                    const Box& box) {
  const Catalog catalog = CatalogOf(shape, slices);
  try {
    const std::vector<SliceOverlap> overlaps = FindOverlaps(catalog, catalog.tensors[0], box);
    std::vector<int> times(Volume(WholeBox(shape)));
    for (const SliceOverlap& overlap : overlaps) {
      EXPECT_EQ(overlap.slice_box, catalog.BoxOf(catalog.tensors[0], *overlap.slice));
      EXPECT_EQ(overlap.is_whole_slice(), overlap.intersection == overlap.slice_box);
      ForEachElement(WholeBox(shape), overlap.intersection, [&](uint64_t i) { ++times[i]; });
    }
    uint64_t covered = 0;
    ForEachElement(WholeBox(shape), box, [&](uint64_t i) { covered += times[i] == 1; });
    EXPECT_EQ(covered, Volume(box));
  } catch (const CorruptionError& error) {
    return error.what();
  }
  return "";
}

// Counts whether the slices that intersect the box overlap, and whether they leave holes in it.
void Count(const std::vector<int64_t>& shape, const std::vector<Box>& slices, const Box& box,
           bool* overlap, bool* hole) {
  const Box whole = WholeBox(shape);
  std::vector<int> times(Volume(whole));
  for (const Box& slice : slices) {
    if (Intersect(slice, box)) ForEachElement(whole, slice, [&](uint64_t i) { ++times[i]; });
  }
  *overlap = std::any_of(times.begin(), times.end(), [](int n) { return n > 1; });
  *hole = false;
  ForEachElement(whole, box, [&](uint64_t i) { *hole |= times[i] == 0; });
}

void ExpectAsCounted(const std::vector<int64_t>& shape, const std::vector<Box>& slices,
                     const Box& box) {
  bool overlap = false;
  bool hole = false;
  Count(shape, slices, box, &overlap, &hole);
  const std::string error = ErrorOf(shape, slices, box);
  if (overlap) {
    EXPECT_NE(error.find("overlaps another"), std::string::npos) << error;
  } else if (hole) {
    EXPECT_NE(error.find("elements of " + ToString(box)), std::string::npos) << error;
  } else {
    EXPECT_EQ(error, "");
  }
}

TEST(FindOverlaps, AcceptsEveryBoxOfRandomTilings) {
  Random random(21);
  for (int round = 0; round < 1000; ++round) {
    const std::vector<int64_t> shape = testing::RandomShape(&random, 4, 7);
    std::vector<Box> slices =
        RandomTiling(&random, WholeBox(shape), static_cast<int>(random() % 20));
    std::shuffle(slices.begin(), slices.end(), random);
    ASSERT_EQ(ErrorOf(shape, slices, WholeBox(shape)), "");
    ASSERT_EQ(ErrorOf(shape, slices, testing::RandomBoxIn(&random, WholeBox(shape))), "");
  }
}

TEST(FindOverlaps, MatchesCountsForRandomSlices) {
  Random random(22);
  for (int round = 0; round < 3000; ++round) {
    const std::vector<int64_t> shape = testing::RandomShape(&random, 3, 6);
    std::vector<Box> slices =
        RandomTiling(&random, WholeBox(shape), static_cast<int>(random() % 8));
    if (random() % 2 == 0) slices.pop_back();
    if (random() % 2 == 0) slices.push_back(testing::RandomBoxIn(&random, WholeBox(shape)));
    if (slices.empty()) continue;
    ExpectAsCounted(shape, slices, WholeBox(shape));
    ExpectAsCounted(shape, slices, testing::RandomBoxIn(&random, WholeBox(shape)));
  }
}

TEST(FindOverlaps, Pinwheel) {
  EXPECT_EQ(ErrorOf({3, 3}, kPinwheel, {{0, 3}, {0, 3}}), "");
  EXPECT_EQ(ErrorOf({3, 3}, kPinwheel, {{0, 2}, {1, 2}}), "");
  std::vector<Box> hole = kPinwheel;
  hole.pop_back();
  ExpectAsCounted({3, 3}, hole, {{0, 3}, {0, 3}});
  std::vector<Box> overlap = kPinwheel;
  overlap.push_back({{1, 1}, {1, 1}});
  ExpectAsCounted({3, 3}, overlap, {{0, 3}, {0, 3}});
}

TEST(FindOverlaps, RejectsAnOverlapAndAHoleOfTheSameSize) {
  EXPECT_NE(ErrorOf({4}, {{{0, 2}}, {{1, 2}}}, {{0, 4}}), "")
      << "four elements, but not those four";
}

TEST(FindOverlaps, Scalars) {
  EXPECT_EQ(ErrorOf({}, {{}}, {}), "");
  EXPECT_NE(ErrorOf({}, {{}, {}}, {}), "");
  EXPECT_NE(ErrorOf({}, {}, {}), "");
}

TEST(FindOverlaps, AcceptsHundredThousandRowsAndAGrid) {
  std::vector<Box> rows;
  for (int64_t row = 0; row < 100'000; ++row) rows.push_back({{row, 1}, {0, 1}});
  std::shuffle(rows.begin(), rows.end(), Random(1));
  EXPECT_EQ(ErrorOf({100'000, 1}, rows, {{0, 100'000}, {0, 1}}), "");
  std::vector<Box> grid;
  for (int64_t row = 0; row < 320; ++row) {
    for (int64_t column = 0; column < 320; ++column) grid.push_back({{2 * row, 2}, {column, 1}});
  }
  std::shuffle(grid.begin(), grid.end(), Random(1));
  EXPECT_EQ(ErrorOf({640, 320}, grid, {{0, 640}, {0, 320}}), "");
  grid.push_back({{100, 1}, {100, 1}});
  EXPECT_NE(ErrorOf({640, 320}, grid, {{0, 640}, {0, 320}}).find("overlaps another"),
            std::string::npos);
}

// Every cut separates one slice only: rows and columns are peeled off in turn.
TEST(FindOverlaps, SoonRejectsSlicesThatCutsDivideSlowly) {
  const int64_t n = 30'000;
  std::vector<Box> onion;
  int64_t top = 0;
  int64_t left = 0;
  while (top < n && left < n) {
    onion.push_back({{top, 1}, {left, n - left}});
    ++top;
    if (top == n) break;
    onion.push_back({{top, n - top}, {left, 1}});
    ++left;
  }
  const Catalog catalog = CatalogOf({n, n}, onion);
  EXPECT_THROW(FindOverlaps(catalog, catalog.tensors[0], {{0, n}, {0, n}}), UnsupportedError);
}

}  // namespace
}  // namespace tensorbundle
