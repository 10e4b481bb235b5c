// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/table.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "table_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TableBuilder;
using testing::TempDir;

using Pairs = std::map<std::string, std::string>;

Pairs SomePairs() {
  Pairs pairs;
  for (int i = 0; i < 300; ++i) {
    pairs["layer/" + std::to_string(i * 7919 % 1000)] = std::string(i % 50, 'v');
  }
  return pairs;
}

std::string FileOf(const Pairs& pairs, size_t block_size, bool snappy = false) {
  TableBuilder builder(block_size);
  if (snappy) builder.UseSnappy();
  for (const auto& [key, value] : pairs) builder.Add(key, value);
  return builder.Finish();
}

// All entries, and the checksum at the end. Values are copied while they are there; keys stay.
std::pair<Pairs, uint32_t> ReadAll(std::shared_ptr<const ByteSource> source) {
  const Table table = Table::Open(std::move(source));
  ByteArena keys;
  TableIterator iterator(table, &keys);
  std::vector<std::pair<std::string_view, std::string>> seen;
  while (iterator.Next()) seen.emplace_back(iterator.key(), AsText(iterator.value()));
  EXPECT_FALSE(iterator.Next()) << "again false at the end";
  return {Pairs(seen.begin(), seen.end()), iterator.checksum()};
}

std::pair<Pairs, uint32_t> ReadAll(const std::string& file) {
  return ReadAll(
      std::make_shared<MemorySource>("f", std::vector<uint8_t>(file.begin(), file.end())));
}

TEST(TableIterator, ReadsBlocksOfAnySizeFromMemoryAndFromAFile) {
  const TempDir dir;
  const Pairs pairs = SomePairs();
  for (const bool snappy : {false, true}) {
    for (const size_t block_size : {1, 60, 1000, 1 << 18}) {
      const std::string file = FileOf(pairs, block_size, snappy);
      const auto found = ReadAll(file);
      EXPECT_EQ(found.first, pairs);
      EXPECT_EQ(ReadAll(std::make_shared<FileSource>(File::Open(dir.Write("f", file)))), found);
    }
  }
}

TEST(TableIterator, ChecksumDiffersBetweenTables) {
  Pairs pairs = SomePairs();
  const auto checksum = [](const Pairs& of) { return ReadAll(FileOf(of, 100)).second; };
  const uint32_t before = checksum(pairs);
  EXPECT_EQ(checksum(pairs), before);
  pairs.begin()->second = "x";
  const uint32_t first_changed = checksum(pairs);
  EXPECT_NE(first_changed, before);
  pairs.rbegin()->second += "x";
  EXPECT_NE(checksum(pairs), first_changed);
  EXPECT_NE(checksum(pairs), before);
}

TEST(TableIterator, ThrowsIfTheFileIsTruncatedMeanwhile) {
  const TempDir dir;
  const std::string path = dir.Write("f", FileOf(SomePairs(), 100));
  const Table table = Table::Open(std::make_shared<FileSource>(File::Open(path)));
  ByteArena keys;
  TableIterator iterator(table, &keys);
  ASSERT_TRUE(iterator.Next());
  std::filesystem::resize_file(path, 300);
  EXPECT_THROW(while (iterator.Next()){}, Error);
}

TableEntries EntriesOf(const std::set<std::string>& keys, size_t block_size) {
  TableBuilder builder(block_size);
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

}  // namespace
}  // namespace tensorbundle
