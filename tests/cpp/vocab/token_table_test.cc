// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/token_table.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/vocab/token_hash.h"
#include "tensorbundle/vocab/vocabulary.h"
#include "vocab/tokens.h"

namespace tensorbundle {
namespace {

using testing::OfTokens;
using testing::Tokens;
using testing::VocabularyPtr;

std::vector<std::string_view> ViewsOf(const Vocabulary& vocabulary) {
  std::vector<std::string_view> views;
  for (uint64_t row = 0; row < vocabulary.size(); ++row) views.push_back(vocabulary.token(row));
  return views;
}

TEST(TokenHashTest, DependsOnSizeAndEveryByte) {
  const TokenHasher hash(1);
  for (size_t size = 0; size <= 70; ++size) {
    std::string padded(size + 2 * Vocabulary::kReadablePadding, 'p');
    const std::string_view token(padded.data(), size);
    const uint64_t before = hash(token);
    padded[size] = 'q';  // the byte after it
    EXPECT_EQ(hash(token), before) << size;
    EXPECT_NE(hash({padded.data(), size + 1}), before) << size;
    for (size_t i = 0; i < size; ++i) {
      std::string other = padded;
      other[i] ^= 1;
      EXPECT_NE(hash({other.data(), size}), before) << size << " " << i;
      EXPECT_FALSE(SameToken({other.data(), size}, token)) << size << " " << i;
    }
    const std::string copy = "12345" + padded;
    EXPECT_TRUE(SameToken({copy.data() + 5, size}, token)) << size;
    EXPECT_EQ(hash({copy.data() + 5, size}), before) << size;
    EXPECT_FALSE(SameToken({copy.data() + 5, size + 1}, token)) << size;
  }
}

TEST(TokenTableTest, ManyTokensOfEveryLength) {
  Tokens tokens;
  for (size_t i = 0; i < 3000; ++i) tokens.push_back(std::string(i % 40, 'x') + std::to_string(i));
  const VocabularyPtr vocabulary = OfTokens(tokens);
  for (const uint64_t num_rows : {0u, 1u, 2u, 7u, 8u, 9u, 63u, 64u, 65u, 3000u}) {
    const TokenTable table(*vocabulary, num_rows, num_rows % 2 == 0 ? 0 : tokens.size(), 2);
    std::vector<int64_t> rows(tokens.size());
    EXPECT_EQ(table.FindAll(ViewsOf(*vocabulary), std::span(rows)), num_rows);
    for (uint64_t row = 0; row < tokens.size(); ++row) {
      EXPECT_EQ(rows[row], row < num_rows ? static_cast<int64_t>(row) : TokenTable::kAbsent);
      EXPECT_EQ(table.Find(vocabulary->token(row)), rows[row]);
    }
  }
}

TEST(SlotLineTest, MatchesTagsAndFreeSlots) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 2000; ++round) {
    alignas(64) uint64_t line[kSlotsPerLine] = {};
    const uint64_t tags[2] = {TagOf(random()), TagOf(random())};
    const size_t taken = random() % (kSlotsPerLine + 1);
    uint32_t tagged = 0;
    for (size_t i = 0; i < taken; ++i) {
      const uint64_t row = random() % 2 == 0 ? kOffsetMask : random() % 3;
      line[i] = MakeSlot(tags[random() % 2], row);
      EXPECT_EQ(OffsetOf(line[i]), row);
      tagged |= static_cast<uint32_t>(line[i] >> kOffsetBits == tags[0]) << i;
    }
    const LineMatch match = MatchLine(line, tags[0]);
    EXPECT_EQ(match.tagged, tagged);
    EXPECT_EQ(match.free, 0xffu & ~((1u << taken) - 1));
  }
}

// Pairs of tokens that have the same tag and belong in the same line of a small table.
std::vector<std::pair<std::string, std::string>> AlikePairs(const TokenHasher& hasher) {
  std::vector<std::pair<std::string, std::string>> pairs;
  std::unordered_map<uint64_t, std::string> seen;
  for (uint64_t i = 0; i < 400'000; ++i) {
    std::string token = std::to_string(i);
    const std::string padded = token + std::string(Vocabulary::kReadablePadding, ' ');
    const uint64_t hash = hasher(std::string_view(padded).substr(0, token.size()));
    const auto [at, added] = seen.emplace(TagOf(hash) | hash >> 58 << 32, token);
    if (!added) pairs.emplace_back(at->second, token);
  }
  return pairs;
}

TEST(TokenTableTest, DistinguishesTokensWithEqualTags) {
  const TokenHasher hasher(1);
  Tokens firsts, seconds;
  for (const auto& [first, second] : AlikePairs(hasher)) {
    firsts.push_back(first);
    seconds.push_back(second);
  }
  ASSERT_GT(firsts.size(), 50u);
  const VocabularyPtr half = OfTokens(firsts);
  const VocabularyPtr other_half = OfTokens(seconds);
  std::vector<int64_t> rows(firsts.size());
  EXPECT_EQ(
      TokenTable(*half, half->size(), 0, 1, hasher).FindAll(ViewsOf(*other_half), std::span(rows)),
      0u);

  firsts.insert(firsts.end(), seconds.begin(), seconds.end());
  const VocabularyPtr both = OfTokens(firsts);
  rows.resize(firsts.size());
  const TokenTable table(*both, both->size(), 0, 1, hasher);
  EXPECT_EQ(table.first_duplicate(), std::nullopt);
  EXPECT_EQ(table.FindAll(ViewsOf(*both), std::span(rows)), rows.size());
  for (size_t row = 0; row < rows.size(); ++row) EXPECT_EQ(rows[row], static_cast<int64_t>(row));
}

// Every thread inserts the same few tokens, in any order of rows.
TEST(TokenTableTest, ThreadsThatInsertTheSameTokens) {
  Tokens tokens(150'000);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = std::to_string(i % 5);
  const VocabularyPtr vocabulary = OfTokens(tokens);
  for (int round = 0; round < 20; ++round) {
    const TokenTable table(*vocabulary, vocabulary->size(), 0, 8);
    EXPECT_EQ(table.first_duplicate(), 5u);
    for (uint64_t row = 0; row < 5; ++row)
      EXPECT_EQ(table.Find(vocabulary->token(row)), static_cast<int64_t>(row));
  }
}

}  // namespace
}  // namespace tensorbundle
