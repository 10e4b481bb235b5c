// SPDX-License-Identifier: Apache-2.0
// Comparison with LevelDB's reader and writer of the same format.
#include <gtest/gtest.h>
#include <leveldb/comparator.h>
#include <leveldb/env.h>
#include <leveldb/iterator.h>
#include <leveldb/options.h>
#include <leveldb/table.h>
#include <leveldb/table_builder.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "table_builder.h"
#include "temp_dir.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Keys as tensors have them, long shared prefixes among them, and keys of arbitrary bytes.
Pairs RandomPairs(std::mt19937* random, size_t count) {
  std::map<std::string, std::string> pairs = {{"", "header"}};
  while (pairs.size() < count) {
    std::string key;
    if ((*random)() % 4 == 0) {
      key.resize((*random)() % 12);
      for (char& c : key) c = static_cast<char>((*random)());
    } else {
      key = "model/layer_" + std::to_string((*random)() % 100) +
            "/kernel/.ATTRIBUTES/VARIABLE_VALUE" + std::to_string((*random)() % 100);
    }
    std::string value((*random)() % ((*random)() % 50 == 0 ? 5000 : 60), '\0');
    for (char& c : value) c = static_cast<char>((*random)() % 3);
    pairs.emplace(key, value);
  }
  return {pairs.begin(), pairs.end()};
}

void WriteWithLevelDb(const std::string& path, const Pairs& pairs,
                      const leveldb::Options& options) {
  leveldb::WritableFile* raw = nullptr;
  ASSERT_TRUE(leveldb::Env::Default()->NewWritableFile(path, &raw).ok());
  const std::unique_ptr<leveldb::WritableFile> file(raw);
  leveldb::TableBuilder builder(options, file.get());
  for (const auto& [key, value] : pairs) builder.Add(key, value);
  ASSERT_TRUE(builder.Finish().ok());
  ASSERT_TRUE(file->Close().ok());
}

Pairs ReadWithLevelDb(const std::string& path) {
  uint64_t size = 0;
  leveldb::RandomAccessFile* raw = nullptr;
  EXPECT_TRUE(leveldb::Env::Default()->GetFileSize(path, &size).ok());
  EXPECT_TRUE(leveldb::Env::Default()->NewRandomAccessFile(path, &raw).ok());
  const std::unique_ptr<leveldb::RandomAccessFile> file(raw);
  leveldb::Options options;
  options.paranoid_checks = true;
  leveldb::Table* opened = nullptr;
  EXPECT_TRUE(leveldb::Table::Open(options, file.get(), size, &opened).ok());
  const std::unique_ptr<leveldb::Table> table(opened);
  leveldb::ReadOptions reading;
  reading.verify_checksums = true;
  const std::unique_ptr<leveldb::Iterator> iterator(table->NewIterator(reading));
  Pairs pairs;
  for (iterator->SeekToFirst(); iterator->Valid(); iterator->Next()) {
    pairs.emplace_back(iterator->key().ToString(), iterator->value().ToString());
  }
  EXPECT_TRUE(iterator->status().ok());
  return pairs;
}

Pairs ReadWithUs(const std::string& path) {
  const Table table = Table::Open(std::make_shared<MemorySource>(*File::Open(path)));
  const TableEntries entries = TableEntries::ReadAll(table);
  Pairs pairs;
  for (size_t i = 0; i < entries.size(); ++i) {
    pairs.emplace_back(entries.key(i), AsText(entries.value(i)));
  }
  return pairs;
}

TEST(NextToLevelDb, ReadsTablesOfLevelDb) {
  const TempDir dir;
  std::mt19937 random(42);
  for (const auto compression : {leveldb::kNoCompression, leveldb::kSnappyCompression}) {
    for (const size_t block_size : {1, 64, 1024, 262144}) {
      for (const int interval : {1, 2, 16, 1000}) {
        leveldb::Options options;
        options.compression = compression;
        options.block_size = block_size;
        options.block_restart_interval = interval;
        for (const size_t count : {1, 2, 17, 700}) {
          const Pairs pairs = RandomPairs(&random, count);
          WriteWithLevelDb(dir / "t", pairs, options);
          ASSERT_EQ(ReadWithUs(dir / "t"), pairs)
              << compression << " " << block_size << " " << interval << " " << count;
          ASSERT_EQ(ReadWithLevelDb(dir / "t"), pairs);
        }
      }
    }
  }
}

// LevelDB reads the tables that the other tests write.
TEST(NextToLevelDb, LevelDbReadsTablesOfTheTests) {
  const TempDir dir;
  std::mt19937 random(43);
  for (const size_t block_size : {1, 100, 262144}) {
    for (const int interval : {1, 16}) {
      const Pairs pairs = RandomPairs(&random, 300);
      testing::TableBuilder builder(block_size, interval);
      for (const auto& [key, value] : pairs) builder.Add(key, value);
      const std::string path = dir.Write("t", builder.Finish());
      ASSERT_EQ(ReadWithLevelDb(path), pairs);
      ASSERT_EQ(ReadWithUs(path), pairs);
    }
  }
}

}  // namespace
}  // namespace tensorbundle
