// SPDX-License-Identifier: Apache-2.0
// The length of the longest common subsequence of one text and many others, by the bit-vector
// algorithm of Hyyrö (2004): one addition and three logical operations per character of a text and
// 64 characters of the pattern. It ranks the suggestions for a misspelled tensor name.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tensorbundle {

// Compares texts with one pattern. Of longer texts, only the first `kMaxSize` bytes are compared.
// Threads: immutable and thread-safe.
class SubsequenceMatcher {
 public:
  static constexpr size_t kMaxSize = 256;

  explicit SubsequenceMatcher(std::string_view pattern);

  // The number of bytes of the pattern that are compared.
  size_t size() const { return size_; }

  // The number of 64-bit words that are updated per byte of a text: the cost of a comparison.
  size_t words() const { return words_; }

  // Returns the length of the longest common subsequence of the pattern and `text`.
  size_t Length(std::string_view text) const;

 private:
  static constexpr size_t kWords = kMaxSize / 64;

  size_t size_;
  size_t words_;
  // For every byte value, the set of its positions in the pattern.
  std::array<std::array<uint64_t, kWords>, 256> positions_{};
};

}  // namespace tensorbundle
