// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/copy_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace tensorbundle {
namespace {

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

TEST(ByteSwap, OfNothing) {
  for (const unsigned unit : {1U, 2U, 4U, 8U}) SwapBytes({}, unit);
}

}  // namespace
}  // namespace tensorbundle
