// SPDX-License-Identifier: Apache-2.0
// Indexes with random changes and correct checksums: they are aligned, or refused without leaving
// files.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "table_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/write/align.h"

namespace tensorbundle {
namespace {

using testing::BlockPlace;
using testing::BundleBuilder;
using testing::Record;
using testing::TableBuilder;
using testing::TempDir;
using testing::VarintField;

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Everything that a reader sees of a checkpoint except the offsets.
std::vector<std::string> Seen(const std::string& prefix) {
  const Catalog catalog = ReadBundleIndex(prefix).catalog;
  std::vector<std::string> all;
  for (const Tensor& tensor : catalog.tensors) {
    all.push_back(std::string(tensor.name) + DataTypeName(tensor.dtype) +
                  ShapeToString(catalog.Shape(tensor)));
    for (const StoredSlice& slice : catalog.Slices(tensor)) {
      const std::string& file = catalog.files[slice.file];
      all.push_back(Describe(catalog, tensor, slice) + file.substr(prefix.size()) +
                    std::to_string(slice.masked_checksum) +
                    Contents(file).substr(slice.offset, slice.size));
    }
  }
  return all;
}

// Records of every kind, in two shards, and the locations of the blocks of the index.
struct Source {
  BundleBuilder bundle{2};
  std::string index;
  std::vector<BlockPlace> places;

  Source() {
    Record strings = bundle.Store(DataType::kString, {2}, "\x01\x02\xbf\xdf\xdb\x7atuv", 1);
    strings.crc = 0xd6325100;  // not that of the stored bytes
    TableBuilder table(120);
    table.Add("", VarintField(1, 2) + testing::BytesField(3, VarintField(1, 1)));
    const auto add = [&](const std::string& key, const Record& record) {
      table.Add(key, record.Message());
    };
    const Box top = {{0, 2}, {0, 3}};
    const Box bottom = {{2, 2}, {0, 3}};
    add(SliceKey("w", top), bundle.Store(DataType::kUint8, {2, 3}, "abcdef"));
    add(SliceKey("w", bottom), bundle.Store(DataType::kUint8, {2, 3}, "ghijkl", 1));
    add("a", bundle.Store(DataType::kFloat, {2}, "12345678"));
    add("e", bundle.Store(DataType::kFloat, {0}, "", 1));
    add("s", strings);
    add("u", bundle.Store(static_cast<DataType>(90), {}, "xyz"));
    add("w", Record{.dtype = DataType::kUint8, .dims = {4, 3}, .slices = {top, bottom}});
    index = table.Finish();
    places = table.places();
  }

  std::string Mutated(std::mt19937* random) const {
    std::string bytes = index;
    const BlockPlace& place = places[(*random)() % places.size()];
    for (auto left = 1 + (*random)() % 3; left > 0; --left) {
      char& byte = bytes[place.offset + (*random)() % place.size];
      byte = static_cast<char>((*random)() % 2 == 0 ? (*random)() : byte ^ (1 << (*random)() % 8));
    }
    TableBuilder::FixChecksum(place, &bytes);
    return bytes;
  }
};

TEST(AlignMutation, GivesTheSameCheckpointOrAnError) {
  const TempDir dir;
  std::mt19937 random(91);
  Source source;
  source.bundle.Write(dir / "a");
  int aligned = 0;
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    dir.Write("a.index", source.Mutated(&random));
    try {
      AlignPlan(dir / "a", 64).Write(dir / "new/a", 1, [](uint64_t) {});
    } catch (const Error&) {
      ++refused;
      ASSERT_FALSE(std::filesystem::exists(dir / "new")) << round;
      continue;
    }
    ++aligned;
    ASSERT_EQ(Seen(dir / "new/a"), Seen(dir / "a")) << round;
    std::filesystem::remove_all(dir / "new");
  }
  EXPECT_GT(aligned, 10);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace tensorbundle
