// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/common_subsequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace tensorbundle {
namespace {

// The textbook recurrence, one cell at a time.
size_t Expected(const std::string& a, const std::string& b) {
  std::vector<size_t> above(b.size() + 1);
  for (const char c : a) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      row[j + 1] = c == b[j] ? above[j] + 1 : std::max(above[j + 1], row[j]);
    }
    above = row;
  }
  return above.back();
}

TEST(CommonSubsequence, SmallCases) {
  EXPECT_EQ(SubsequenceMatcher("").Length("abc"), 0U);
  EXPECT_EQ(SubsequenceMatcher("abc").Length(""), 0U);
  EXPECT_EQ(SubsequenceMatcher("abc").Length("abc"), 3U);
  EXPECT_EQ(SubsequenceMatcher("kernel").Length("dense/kernel"), 6U);
  EXPECT_EQ(SubsequenceMatcher("\xff\x80").Length("\x80\xff"), 1U);
}

TEST(CommonSubsequence, EqualToTheRecurrence) {
  std::mt19937 random(7);
  for (int turn = 0; turn < 500; ++turn) {
    const auto text = [&] {
      std::string made(random() % 200, 'a');
      for (char& c : made) c = static_cast<char>('a' + random() % (turn % 2 == 0 ? 2 : 20));
      return made;
    };
    const std::string a = text();
    const std::string b = text();
    EXPECT_EQ(SubsequenceMatcher(a).Length(b), Expected(a, b)) << a << " " << b;
  }
}

TEST(CommonSubsequence, WordBoundaries) {
  for (const size_t size : {63U, 64U, 65U, 127U, 128U, 192U, 255U, 256U}) {
    const std::string same(size, 'a');
    EXPECT_EQ(SubsequenceMatcher(same).Length(same), size);
    EXPECT_EQ(SubsequenceMatcher(same).Length("b" + same), std::min(size, size_t{255}));
    EXPECT_EQ(SubsequenceMatcher(same).words(), (size + 63) / 64);
  }
}

TEST(CommonSubsequence, LongTextsCountByTheirBeginning) {
  const std::string longer(300, 'a');
  EXPECT_EQ(SubsequenceMatcher(longer).size(), SubsequenceMatcher::kMaxSize);
  EXPECT_EQ(SubsequenceMatcher(longer).Length(longer), SubsequenceMatcher::kMaxSize);
  EXPECT_EQ(SubsequenceMatcher("b").Length(longer + "b"), 0U);
}

}  // namespace
}  // namespace tensorbundle
