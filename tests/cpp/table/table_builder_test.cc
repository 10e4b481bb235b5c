// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/table_builder.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {
namespace {

using Pairs = std::map<std::string, std::string>;

Table Opened(const std::string& bytes) {
  std::vector<uint8_t> copy(bytes.begin(), bytes.end());
  return Table::Open(std::make_shared<const MemorySource>("t", std::move(copy)));
}

std::string Build(const Pairs& pairs, uint64_t block_size = 262144) {
  TableBuilder builder(block_size);
  for (const auto& [key, value] : pairs) builder.Add(key, value);
  return builder.Finish();
}

Pairs ReadBack(const Table& table) {
  const TableEntries entries = TableEntries::ReadAll(table);
  Pairs pairs;
  for (size_t i = 0; i < entries.size(); ++i) {
    pairs.emplace(entries.key(i), AsText(entries.value(i)));
  }
  return pairs;
}

bool IsSnappy(const Table& table, const MemorySource& source) {
  const BlockHandle& first = table.blocks().front().handle;
  return source.bytes()[first.offset + first.size] == static_cast<uint8_t>(BlockType::kSnappy);
}

// Rewrites the tables that TensorFlow wrote from their records. Some versions compressed them.
TEST(TableBuilder, ReproducesTheBytesOfTensorFlow) {
  int plain = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(TENSORBUNDLE_TEST_DATA)) {
    if (entry.path().extension() != ".index") continue;
    const std::string path = entry.path().string();
    const auto source = std::make_shared<const MemorySource>(*File::Open(path));
    const Table table = Table::Open(source);
    if (IsSnappy(table, *source)) continue;
    TableBuilder builder;
    const TableEntries entries = TableEntries::ReadAll(table);
    for (size_t i = 0; i < entries.size(); ++i) {
      builder.Add(entries.key(i), AsText(entries.value(i)));
    }
    EXPECT_EQ(builder.Finish(), AsText(source->bytes())) << path;
    ++plain;
  }
  EXPECT_GE(plain, 8);
}

TEST(TableBuilder, EmptyTable) { EXPECT_TRUE(ReadBack(Opened(TableBuilder().Finish())).empty()); }

TEST(TableBuilder, SeparatorsAreShort) {
  const Table table = Opened(Build({{"abcdef", "1"}, {"abzz", "2"}, {"b\xff\xff", "3"}}, 1));
  ASSERT_EQ(table.blocks().size(), 3U);
  EXPECT_EQ(table.blocks()[0].separator, "abd");
  EXPECT_EQ(table.blocks()[1].separator, "abzz");  // no short key is between it and "b..."
  EXPECT_EQ(table.blocks()[2].separator, "c");
}

TEST(TableBuilder, LastKeyOf0xffIsItsSeparator) {
  const Table table = Opened(Build({{"\xff\xff", "1"}}));
  EXPECT_EQ(table.blocks().at(0).separator, "\xff\xff");
}

TEST(TableBuilder, LargeRecordGetsItsOwnBlock) {
  const std::string large(2 * 4096, 'x');
  const Table table = Opened(Build({{"a", "1"}, {"b", large}, {"c", "2"}}, 4096));
  EXPECT_EQ(table.blocks().size(), 3U);
  EXPECT_EQ(ReadBack(table), (Pairs{{"a", "1"}, {"b", large}, {"c", "2"}}));
}

TEST(TableBuilder, RandomRoundTrip) {
  std::mt19937 random(73);
  for (int round = 0; round < 300; ++round) {
    Pairs pairs;
    const size_t count = 1 + random() % 200;
    for (size_t i = 0; i < count; ++i) {
      std::string key(random() % 6, '\0');
      for (char& c : key) c = "\x00\x01\xfe\xff"[random() % 4];
      pairs[key] = std::string(random() % 100, static_cast<char>(random()));
    }
    const uint64_t block_size = uint64_t{1} << random() % 14;
    ASSERT_EQ(ReadBack(Opened(Build(pairs, block_size))), pairs) << round;
  }
}

}  // namespace
}  // namespace tensorbundle
