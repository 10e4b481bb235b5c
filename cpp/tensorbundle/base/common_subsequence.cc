// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/common_subsequence.h"

#include <algorithm>
#include <bit>

namespace tensorbundle {

SubsequenceMatcher::SubsequenceMatcher(std::string_view pattern)
    : size_(std::min(pattern.size(), kMaxSize)), words_((size_ + 63) / 64) {
  for (size_t i = 0; i < size_; ++i) {
    positions_[static_cast<uint8_t>(pattern[i])][i / 64] |= uint64_t{1} << (i % 64);
  }
}

size_t SubsequenceMatcher::Length(std::string_view text) const {
  // A zero bit marks a position at which the common subsequence becomes longer by one.
  std::array<uint64_t, kWords> row;
  row.fill(~uint64_t{0});
  for (const char c : text.substr(0, kMaxSize)) {
    const std::array<uint64_t, kWords>& positions = positions_[static_cast<uint8_t>(c)];
    uint64_t carry = 0;
    for (size_t w = 0; w < words_; ++w) {
      const uint64_t matches = row[w] & positions[w];
      const uint64_t partial = row[w] + matches;
      const uint64_t sum = partial + carry;
      carry = static_cast<uint64_t>(partial < row[w]) | static_cast<uint64_t>(sum < partial);
      row[w] = sum | (row[w] & ~positions[w]);
    }
  }
  size_t length = 0;
  for (size_t w = 0; w < words_; ++w) length += static_cast<size_t>(std::popcount(~row[w]));
  return length;
}

}  // namespace tensorbundle
