// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/copy_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace tensorbundle {
namespace {

constexpr uint8_t kUntouched = 0xEE;
constexpr size_t kCount = 7;
constexpr size_t kAhead = 4;

// Copies kCount rows from a source to memory `shift` bytes after a cache line, and compares all of
// that memory with copies row by row. Bit i of `left_out` leaves out row i.
void Check(uint64_t row_size, uint64_t shift, uint64_t gap, StoreHint hint, unsigned left_out) {
  SCOPED_TRACE("rows of " + std::to_string(row_size) + ", shift " + std::to_string(shift) +
               ", gap " + std::to_string(gap) + ", left out " + std::to_string(left_out));
  const uint64_t stride = row_size + gap;
  std::vector<uint8_t> source(kCount * row_size + kCacheLine);
  std::iota(source.begin(), source.end(), uint8_t{1});
  std::vector<uint8_t> memory(kCount * stride + 3 * kCacheLine, kUntouched);
  const uint64_t begin =
      kCacheLine - reinterpret_cast<uintptr_t>(memory.data()) % kCacheLine + shift;
  std::vector<uint8_t> expected = memory;

  std::vector<const uint8_t*> rows(kCount + kAhead, nullptr);
  for (size_t i = 0; i < kCount; ++i) {
    if ((left_out >> i & 1) != 0) continue;
    const size_t row = kCount - 1 - i;
    rows[i] = source.data() + row * row_size + row;  // of every alignment
    std::copy_n(rows[i], row_size, expected.begin() + static_cast<int64_t>(begin + i * stride));
  }
  uint8_t* const out = memory.data() + begin;
  const std::vector<uint8_t> before = memory;
  for (const bool may_use_avx512 : {false, true}) {
    memory = before;
    const auto copy_rows = SelectCopyRows(row_size, hint, out, stride, may_use_avx512);
    copy_rows(rows.data(), kCount, kAhead, row_size, out, stride);
    FenceNontemporalStores();
    ASSERT_EQ(memory, expected) << may_use_avx512;
  }
}

TEST(CopyRows, CopiesEverySizeAndAlignmentAndNothingElse) {
  for (const uint64_t row_size :
       {1, 4, 16, 63, 64, 65, 100, 128, 192, 256, 448, 512, 576, 1000, 1024, 1088, 4096}) {
    for (const uint64_t shift : {0, 1, 4, 8, 16, 20, 32, 48, 60}) {
      for (const uint64_t gap : {0, 4, 16, 64}) {
        for (const StoreHint hint : {StoreHint::kCached, StoreHint::kStreaming}) {
          ASSERT_NO_FATAL_FAILURE(Check(row_size, shift, gap, hint, 0));
        }
      }
    }
  }
}

// The end of a row and the beginning of the next one may be stored together.
TEST(CopyRows, LeavesOutRowsWithoutAnAddress) {
  for (const uint64_t row_size : {64, 100, 128, 256, 512, 576, 1024}) {
    for (const uint64_t shift : {0, 16, 32, 48}) {
      for (const StoreHint hint : {StoreHint::kCached, StoreHint::kStreaming}) {
        for (unsigned left_out = 1; left_out < 1U << kCount; ++left_out) {
          ASSERT_NO_FATAL_FAILURE(Check(row_size, shift, 0, hint, left_out));
        }
      }
    }
  }
}

// AddressSanitizer guards both ends of the row.
TEST(CopyRows, ReadsNothingOutsideTheRows) {
  for (const uint64_t row_size : {64, 128, 256, 512, 576, 1024}) {
    for (const uint64_t shift : {0, 16, 48}) {
      const std::vector<uint8_t> row(row_size, 7);
      std::vector<uint8_t> memory(row_size + 2 * kCacheLine);
      uint8_t* const out = memory.data() + kCacheLine -
                           reinterpret_cast<uintptr_t>(memory.data()) % kCacheLine + shift;
      const std::vector<const uint8_t*> rows{row.data(), nullptr};
      SelectCopyRows(row_size, StoreHint::kStreaming, out, row_size)(rows.data(), 1, 1, row_size,
                                                                     out, row_size);
      FenceNontemporalStores();
      EXPECT_TRUE(std::equal(row.begin(), row.end(), out));
    }
  }
}

}  // namespace
}  // namespace tensorbundle
