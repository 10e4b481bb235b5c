// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/entries.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "table_builder.h"
#include "tensorbundle/table/key_budget.h"

namespace tensorbundle {
namespace {

TableEntries EntriesOf(const std::set<std::string>& keys, size_t block_size) {
  testing::TableBuilder builder(block_size);
  for (const std::string& key : keys) builder.Add(key, "value of " + key);
  const std::string file = builder.Finish();
  return TableEntries::ReadAll(Table::Open(
      std::make_shared<MemorySource>("f", std::vector<uint8_t>(file.begin(), file.end()))));
}

TEST(TableEntries, FindAgreesWithASet) {
  std::mt19937 random(3);
  std::set<std::string> keys;
  while (keys.size() < 400) {
    std::string key(random() % 6, '\0');
    for (char& c : key) c = "\x00\x01z\x80\xff"[random() % 5];
    keys.insert(key);
  }
  const TableEntries entries = EntriesOf(keys, 64);
  ASSERT_EQ(entries.size(), keys.size());
  size_t i = 0;
  for (const std::string& key : keys) {
    EXPECT_EQ(entries.key(i), key);
    EXPECT_EQ(AsText(entries.value(i)), "value of " + key);
    EXPECT_EQ(entries.Find(key), i++);
  }
  for (int round = 0; round < 2000; ++round) {
    std::string key(random() % 7, '\0');
    for (char& c : key) c = "\x00\x01z\x80\xff"[random() % 5];
    EXPECT_EQ(entries.Find(key) != entries.size(), keys.contains(key));
  }
}

TEST(KeyBudget, TakesNoMoreThanThereIs) {
  KeyBudget budget(0);
  EXPECT_FALSE(budget.Take(UINT64_MAX));
  EXPECT_FALSE(budget.Take(1 << 20)) << "a key costs more than its bytes";
  EXPECT_TRUE(budget.Take((1 << 20) - 200));
  EXPECT_FALSE(budget.Take(200));
}

TEST(KeyBudget, EndsWhereNobodyTakesAnything) {
  KeyBudget budget(1000);
  uint64_t taken = 0;
  while (budget.Take(0)) ++taken;
  EXPECT_GT(taken, 250U) << "a plain entry has four bytes";
  EXPECT_LT(taken, 10'000U);
}

}  // namespace
}  // namespace tensorbundle
