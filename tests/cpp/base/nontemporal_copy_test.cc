// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/nontemporal_copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace tensorbundle {
namespace {

TEST(NontemporalCopy, CopiesEverySizeAndAlignmentAndNothingElse) {
  constexpr uint64_t kMargin = 64;
  constexpr uint8_t kUntouched = 0xEE;
  std::vector<uint8_t> source(4096 + kMargin);
  std::iota(source.begin(), source.end(), uint8_t{1});
  for (uint64_t size = 0; size <= 4096; size += size < 1280 ? 16 : 704) {
    for (uint64_t shift = 0; shift < kCacheLine; shift += 8) {
      std::vector<uint8_t> memory(size + 2 * kMargin + kCacheLine, kUntouched);
      const uint64_t align = -reinterpret_cast<uintptr_t>(memory.data()) % kCacheLine;
      uint8_t* out = memory.data() + align + shift;
      const uint8_t* in = source.data() + (shift + size) % kMargin;
      NontemporalCopy(out, in, size);
      FenceNontemporalStores();
      ASSERT_TRUE(std::equal(in, in + size, out)) << size << " bytes, shifted by " << shift;
      const auto is_untouched = [](uint8_t byte) { return byte == kUntouched; };
      ASSERT_TRUE(std::all_of(memory.data(), out, is_untouched)) << size << ", " << shift;
      ASSERT_TRUE(std::all_of(out + size, memory.data() + memory.size(), is_untouched))
          << size << ", " << shift;
    }
  }
}

}  // namespace
}  // namespace tensorbundle
