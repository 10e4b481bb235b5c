// SPDX-License-Identifier: Apache-2.0
// Comparison with LevelDB: it reads the tables of TableBuilder, and its own builder writes the same
// bytes.
#include <gtest/gtest.h>
#include <leveldb/env.h>
#include <leveldb/iterator.h>
#include <leveldb/options.h>
#include <leveldb/table.h>
#include <leveldb/table_builder.h>

#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>

#include "temp_dir.h"
#include "tensorbundle/table/table_builder.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

using Pairs = std::map<std::string, std::string>;  // in the order of unsigned bytes

// Keys as tensors have them and keys of few distinct bytes, 0x00 and 0xff among them, so that
// prefixes of each other, runs of 0xff and neighbours that differ by one are common.
Pairs RandomPairs(std::mt19937* random, size_t count) {
  constexpr std::string_view kBytes("\x00\x01\x7f\x80\xfe\xff", 6);
  Pairs pairs = {{"", "header"}};
  while (pairs.size() < count) {
    std::string key;
    if ((*random)() % 2 == 0) {
      key.resize((*random)() % 10);
      for (char& c : key) c = kBytes[(*random)() % kBytes.size()];
    } else {
      key = "model/layer_" + std::to_string((*random)() % 1000) + "/kernel";
    }
    std::string value((*random)() % 60, '\0');
    for (char& c : value) c = static_cast<char>((*random)());
    pairs.emplace(key, value);
  }
  return pairs;
}

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string BuildWithLevelDb(const std::string& path, const Pairs& pairs, size_t block_size,
                             int restart_interval) {
  leveldb::Options options;
  options.compression = leveldb::kNoCompression;
  options.block_size = block_size;
  options.block_restart_interval = restart_interval;
  leveldb::WritableFile* raw = nullptr;
  EXPECT_TRUE(leveldb::Env::Default()->NewWritableFile(path, &raw).ok());
  const std::unique_ptr<leveldb::WritableFile> file(raw);
  leveldb::TableBuilder builder(options, file.get());
  for (const auto& [key, value] : pairs) builder.Add(key, value);
  EXPECT_TRUE(builder.Finish().ok());
  EXPECT_TRUE(file->Close().ok());
  return Contents(path);
}

std::string BuildWithUs(const Pairs& pairs, size_t block_size, int restart_interval) {
  TableBuilder builder(block_size, restart_interval);
  for (const auto& [key, value] : pairs) builder.Add(key, value);
  return builder.Finish();
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
    pairs.emplace(iterator->key().ToString(), iterator->value().ToString());
  }
  EXPECT_TRUE(iterator->status().ok());
  for (const auto& [key, value] : pairs) {  // the separators lead to every key
    iterator->Seek(key);
    EXPECT_TRUE(iterator->Valid() && iterator->key() == key) << "a lookup misses a key";
  }
  return pairs;
}

TEST(TableBuilderNextToLevelDb, WritesTheSameBytes) {
  const TempDir dir;
  std::mt19937 random(71);
  for (const size_t block_size : {256, 1024, 262144}) {
    for (const int interval : {1, 2, 16}) {
      for (const size_t count : {1, 2, 17, 300, 6000}) {
        const Pairs pairs = RandomPairs(&random, count);
        const std::string ours = BuildWithUs(pairs, block_size, interval);
        ASSERT_EQ(ours, BuildWithLevelDb(dir / "theirs", pairs, block_size, interval))
            << block_size << " " << interval << " " << count;
        ASSERT_EQ(ReadWithLevelDb(dir.Write("ours", ours)), pairs);
      }
    }
  }
}

// LevelDB appends a large record to the current block; TensorFlow gives it a block of its own.
TEST(TableBuilderNextToLevelDb, LevelDbReadsLargeRecordsInTheirOwnBlocks) {
  const TempDir dir;
  std::mt19937 random(72);
  for (int round = 0; round < 20; ++round) {
    Pairs pairs = RandomPairs(&random, 200);
    for (auto& [key, value] : pairs) {
      if (random() % 10 == 0) value.assign(random() % 3000, 'x');
    }
    const std::string path = dir.Write("t", BuildWithUs(pairs, 512, 16));
    ASSERT_EQ(ReadWithLevelDb(path), pairs);
  }
}

}  // namespace
}  // namespace tensorbundle
