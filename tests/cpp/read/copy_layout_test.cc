// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/copy_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "random_boxes.h"

namespace tensorbundle {
namespace {

using testing::ForEachElement;
using testing::Random;

// Returns the offset of every byte of `intersection` in an array.
std::vector<uint64_t> ByteOffsets(const Box& array, const Box& intersection, uint64_t item_size) {
  std::vector<uint64_t> offsets;
  ForEachElement(array, intersection, [&](uint64_t index) {
    for (uint64_t i = 0; i < item_size; ++i) offsets.push_back(index * item_size + i);
  });
  return offsets;
}

struct Offsets {
  std::vector<uint64_t> source;
  std::vector<uint64_t> destination;
  bool operator==(const Offsets&) const = default;
};

Offsets SpanOffsets(const CopyLayout& layout, uint64_t step) {
  Offsets offsets;
  for (uint64_t first = 0; first < layout.count(); first += step) {
    layout.ForEach(first, std::min(step, layout.count() - first),
                   [&](const CopyLayout::Span& span) {
                     for (uint64_t i = 0; i < layout.span_size(); ++i) {
                       offsets.source.push_back(span.source + i);
                       offsets.destination.push_back(span.destination + i);
                     }
                   });
  }
  return offsets;
}

TEST(CopyLayout, MatchesElementwiseCopyForRandomBoxes) {
  Random random(11);
  for (int round = 0; round < 3000; ++round) {
    const Box whole = WholeBox(testing::RandomShape(&random, 5, 5));
    const Box source = testing::RandomBoxIn(&random, whole);
    const Box destination = testing::RandomBoxIn(&random, whole);
    const auto intersection = Intersect(source, destination);
    if (!intersection) continue;
    const uint64_t item_size = uint64_t{1} << random() % 5;
    const CopyLayout layout(source, destination, *intersection, item_size);
    ASSERT_EQ(layout.count() * layout.span_size(), Volume(*intersection) * item_size);
    const Offsets expected = {ByteOffsets(source, *intersection, item_size),
                              ByteOffsets(destination, *intersection, item_size)};
    for (const uint64_t step : {uint64_t{1}, uint64_t{3}, layout.count()}) {
      ASSERT_EQ(SpanOffsets(layout, step), expected)
          << ToString(source) << ToString(destination) << step;
    }
  }
}

TEST(CopyLayout, ContiguousBoxesAreOneSpan) {
  const Box whole = {{0, 4}, {0, 6}};
  const Box rows = {{1, 2}, {0, 6}};
  const CopyLayout all(whole, whole, whole, 4);
  EXPECT_EQ(all.count(), 1U);
  EXPECT_EQ(all.span_size(), 96U);
  EXPECT_EQ(all.source_stride(), 0U);
  const CopyLayout some(whole, rows, rows, 4);
  EXPECT_EQ(some.count(), 1U);
  EXPECT_EQ(some.span_size(), 48U);
  const Box row = {{2, 1}, {1, 3}};
  EXPECT_EQ(CopyLayout(whole, row, row, 4).count(), 1U);
  const Box columns = {{0, 4}, {1, 2}};
  const CopyLayout split(whole, columns, columns, 4);
  EXPECT_EQ(split.count(), 4U);
  EXPECT_EQ(split.span_size(), 8U);
  EXPECT_EQ(split.source_stride(), 24U);
}

TEST(CopyLayout, Scalar) {
  const CopyLayout layout({}, {}, {}, 8);
  EXPECT_EQ(layout.count(), 1U);
  EXPECT_EQ(layout.span_size(), 8U);
  EXPECT_EQ(SpanOffsets(layout, 1).source.size(), 8U);
}

TEST(CopyLayout, OffsetsBeyond32Bits) {
  const Box whole = {{0, int64_t{1} << 33}, {0, 4}};
  const Box corner = {{(int64_t{1} << 33) - 1, 1}, {3, 1}};
  const CopyLayout layout(whole, corner, corner, 8);
  layout.ForEach(0, 1, [](const CopyLayout::Span& span) {
    EXPECT_EQ(span.source, (uint64_t{1} << 38) - 8);
    EXPECT_EQ(span.destination, 0U);
  });
}

TEST(ByteSwap, ReversesEveryUnitAtAnyAlignment) {
  for (const unsigned unit : {1U, 2U, 4U, 8U}) {
    for (size_t skip = 0; skip < 8; ++skip) {
      std::vector<uint8_t> bytes(skip + 64);
      std::iota(bytes.begin(), bytes.end(), uint8_t{0});
      std::vector<uint8_t> expected = bytes;
      for (size_t i = skip; i < expected.size(); i += unit) {
        const auto begin = expected.begin() + static_cast<ptrdiff_t>(i);
        std::reverse(begin, begin + unit);
      }
      SwapBytes(MutableByteSpan(bytes).subspan(skip), unit);
      EXPECT_EQ(bytes, expected) << unit << " " << skip;
    }
  }
}

TEST(ByteSwap, AcceptsNoBytes) {
  for (const unsigned unit : {1U, 2U, 4U, 8U}) SwapBytes({}, unit);
}

}  // namespace
}  // namespace tensorbundle
