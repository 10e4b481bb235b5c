// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/arena.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tensorbundle {
namespace {

TEST(ByteArena, StringsNeverMove) {
  std::mt19937 random(5);
  for (const size_t expected : {size_t{0}, size_t{1}, size_t{100'000}}) {
    ByteArena arena(expected);
    std::vector<std::pair<std::string, std::string_view>> added;
    for (int i = 0; i < 2000; ++i) {
      const std::string text(random() % 5 == 0 ? random() % 9000 : random() % 40,
                             static_cast<char>(random()));
      const size_t cut = random() % (text.size() + 1);
      added.emplace_back(text, arena.Add(std::string_view(text).substr(0, cut),
                                         std::string_view(text).substr(cut)));
    }
    const ByteArena moved = std::move(arena);
    for (const auto& [text, view] : added) ASSERT_EQ(view, text);
  }
}

TEST(ByteArena, MoveKeepsTheStrings) {
  ByteArena arena;
  std::string_view last = arena.Add("ab");
  for (int i = 0; i < 12; ++i) last = arena.Add(last, last);
  EXPECT_EQ(last.size(), size_t{2} << 12);
  EXPECT_EQ(last.substr(last.size() - 4), "abab");
}

TEST(ByteArena, EmptyText) {
  ByteArena arena;
  EXPECT_EQ(arena.Add(""), "");
  EXPECT_EQ(arena.Add(std::string_view(), "a"), "a");
}

}  // namespace
}  // namespace tensorbundle
