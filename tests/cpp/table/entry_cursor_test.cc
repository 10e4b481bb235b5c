// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/entry_cursor.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
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
std::pair<Pairs, uint32_t> Walk(std::shared_ptr<const ByteSource> source) {
  const Table table = Table::Open(std::move(source));
  ByteArena keys;
  EntryCursor cursor(table, &keys);
  std::vector<std::pair<std::string_view, std::string>> seen;
  while (cursor.Next()) seen.emplace_back(cursor.key(), AsText(cursor.value()));
  EXPECT_FALSE(cursor.Next()) << "the end is the end";
  return {Pairs(seen.begin(), seen.end()), cursor.checksum()};
}

std::pair<Pairs, uint32_t> Walk(const std::string& file) {
  return Walk(std::make_shared<MemorySource>("f", std::vector<uint8_t>(file.begin(), file.end())));
}

TEST(EntryCursor, BlocksOfAnySizeFromMemoryAndFromAFile) {
  const TempDir dir;
  const Pairs pairs = SomePairs();
  for (const bool snappy : {false, true}) {
    for (const size_t block_size : {1, 60, 1000, 1 << 18}) {
      const std::string file = FileOf(pairs, block_size, snappy);
      const auto walked = Walk(file);
      EXPECT_EQ(walked.first, pairs);
      EXPECT_EQ(Walk(std::make_shared<FileSource>(File::Open(dir.Write("f", file)))), walked);
    }
  }
}

TEST(EntryCursor, TheChecksumTellsTablesApart) {
  Pairs pairs = SomePairs();
  const auto checksum = [](const Pairs& of) { return Walk(FileOf(of, 100)).second; };
  const uint32_t before = checksum(pairs);
  EXPECT_EQ(checksum(pairs), before);
  pairs.begin()->second = "x";
  const uint32_t first_changed = checksum(pairs);
  EXPECT_NE(first_changed, before);
  pairs.rbegin()->second += "x";
  EXPECT_NE(checksum(pairs), first_changed);
  EXPECT_NE(checksum(pairs), before);
}

TEST(EntryCursor, AFileCutOffMeanwhile) {
  const TempDir dir;
  const std::string path = dir.Write("f", FileOf(SomePairs(), 100));
  const Table table = Table::Open(std::make_shared<FileSource>(File::Open(path)));
  ByteArena keys;
  EntryCursor cursor(table, &keys);
  ASSERT_TRUE(cursor.Next());
  std::filesystem::resize_file(path, 300);
  EXPECT_THROW(while (cursor.Next()){}, Error);
}

}  // namespace
}  // namespace tensorbundle
