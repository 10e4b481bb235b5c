// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/index_reader.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::BytesField;
using testing::Record;
using testing::TempDir;
using testing::VarintField;

constexpr Extent kAll{0, kFullLength};

Catalog Load(const std::string& file) {
  const auto source =
      std::make_shared<MemorySource>("p.index", std::vector<uint8_t>(file.begin(), file.end()));
  return ReadBundleIndex("p", source).catalog;
}

Catalog Load(const BundleBuilder& builder) { return Load(builder.Index()); }

std::string ErrorOf(const BundleBuilder& builder) {
  try {
    Load(builder);
  } catch (const CorruptionError& error) {
    return error.what();
  }
  return "";
}

#define EXPECT_FAULT(builder, part) \
  EXPECT_NE(ErrorOf(builder).find(part), std::string::npos) << "found: " << ErrorOf(builder)

// Builds a bundle with one record.
BundleBuilder With(const Record& record) { return BundleBuilder(2).Put("t", record.Message()); }

BundleBuilder Sliced(const std::vector<Box>& slices, std::vector<int64_t> dims = {4, 6}) {
  return BundleBuilder().AddSliced("w", DataType::kFloat, dims, std::string(4 * 24, 'x'), slices);
}

TEST(BundleIndexFile, ListsAllTensors) {
  BundleBuilder builder(2);
  builder.Add("b", DataType::kInt64, {2, 3}, std::string(48, 'b'), 1);
  builder.Add("a", DataType::kFloat, {}, "aaaa");
  builder.Add("s", DataType::kString, {0}, "\xd8\xea\x82\xa2");
  const Catalog catalog = Load(builder);
  ASSERT_EQ(catalog.tensors.size(), 3U);
  EXPECT_EQ(catalog.tensors[0].name, "a");
  EXPECT_EQ(catalog.tensors[0].rank, 0U);
  EXPECT_EQ(catalog.tensors[0].num_elements, 1U);
  const Tensor& b = catalog.tensors[catalog.Find("b")];
  EXPECT_EQ(b.dtype, DataType::kInt64);
  EXPECT_EQ(ShapeToString(catalog.Shape(b)), "(2, 3)");
  const StoredSlice& slice = catalog.Slices(b)[0];
  EXPECT_EQ(slice.size, 48U);
  EXPECT_EQ(catalog.files[slice.file], "p.data-00001-of-00002");
  EXPECT_EQ(ToString(catalog.BoxOf(b, slice)), "[0:2, 0:3]");
  EXPECT_EQ(catalog.Slices(catalog.tensors[2])[0].encoding, Encoding::kStrings);
  EXPECT_EQ(catalog.Find("c"), Catalog::kNotFound);
  EXPECT_EQ(catalog.Find(""), Catalog::kNotFound) << "the header is no tensor";
  EXPECT_TRUE(catalog.warnings.empty());
}

TEST(BundleIndexFile, NamesOutliveTheReader) {
  auto catalog =
      std::make_unique<Catalog>(Load(BundleBuilder().Add("name", DataType::kInt8, {1}, "x")));
  const Catalog moved = std::move(*catalog);
  catalog.reset();
  EXPECT_EQ(moved.tensors[0].name, "name");
}

TEST(BundleIndexFile, HeaderMustBeFirst) {
  EXPECT_FAULT(BundleBuilder().Add("a", DataType::kInt8, {1}, "x").Remove(""), "first key");
  EXPECT_FAULT(BundleBuilder().Remove(""), "first key");
  EXPECT_FAULT(BundleBuilder().Put("", BytesField(1, "")), "V1 checkpoint");
  EXPECT_FAULT(BundleBuilder().Put("", ""), "0 shards");
  EXPECT_TRUE(Load(BundleBuilder()).tensors.empty());
}

TEST(BundleIndexFile, SizesMustFitShapes) {
  EXPECT_EQ(ErrorOf(With({DataType::kFloat, {2, 3}, 0, 0, 24})), "");
  EXPECT_FAULT(With({DataType::kFloat, {2, 3}, 0, 0, 23}), "cannot take 23 bytes");
  EXPECT_FAULT(With({DataType::kFloat, {2, 3}, 0, 0, 25}), "cannot take 25 bytes");
  EXPECT_EQ(ErrorOf(With({DataType::kFloat, {0, 3}, 0, 7, 0})), "");
  EXPECT_FAULT(With({DataType::kFloat, {0, 3}, 0, 0, 1}), "cannot take");
  EXPECT_FAULT(With({DataType::kString, {100}, 0, 0, 103}), "cannot take");
  EXPECT_EQ(ErrorOf(With({DataType::kString, {100}, 0, 0, 104})), "");
  EXPECT_FAULT(With({DataType::kVariant, {100}, 0, 0, 499}), "cannot take");
  EXPECT_EQ(ErrorOf(With({DataType::kVariant, {100}, 0, 0, 500})), "");
  EXPECT_FAULT(With({DataType::kString, {INT64_MAX}, 0, 0, 2}), "cannot take");
  EXPECT_FAULT(With({DataType::kVariant, {INT64_MAX}, 0, 0, 2}), "cannot take");
}

TEST(BundleIndexFile, ImpossibleShapes) {
  EXPECT_FAULT(With({DataType::kInt8, {-1}, 0, 0, 0}), "impossible shape");
  EXPECT_FAULT(With({DataType::kInt8, {INT64_MAX, 3}, 0, 0, 3}), "impossible shape");
  EXPECT_FAULT(With({DataType::kInt8, {0, INT64_MAX, 3}, 0, 0, 0}), "impossible shape");
  EXPECT_FAULT(With({DataType::kDouble, {int64_t{1} << 61}, 0, 0, 0}), "impossible shape");
  EXPECT_FAULT(With({DataType::kDouble, {int64_t{1} << 60}, 0, 0, 0}), "impossible shape");
}

// 16 * (2^60 + 1) is 16 in 64 bits: a destination of 16 bytes would seem to be large enough.
TEST(BundleIndexFile, SizeOfAPartitionedTensorDoesNotWrap) {
  const int64_t rows = (int64_t{1} << 60) + 1;
  const std::vector<Box> slices = {{{0, 1}}};
  BundleBuilder builder;
  builder.Put(SliceKey("w", slices[0]), Record{DataType::kComplex128, {1}, 0, 0, 16}.Message());
  builder.Put("w",
              Record{.dtype = DataType::kComplex128, .dims = {rows}, .slices = slices}.Message());
  EXPECT_FAULT(builder, "impossible shape");
  builder.Put(
      "w", Record{.dtype = DataType::kComplex128, .dims = {rows / 4}, .slices = slices}.Message());
  EXPECT_EQ(ErrorOf(builder), "") << "a partly saved tensor may be larger than any file";
}

TEST(BundleIndexFile, LocationsMustBePossible) {
  EXPECT_FAULT(With({DataType::kInt8, {1}, 2, 0, 1}), "shard 2 of 2");
  EXPECT_FAULT(With({DataType::kInt8, {1}, -1, 0, 1}), "shard -1 of 2");
  EXPECT_FAULT(With({DataType::kInt8, {1}, 0, UINT64_MAX, 1}), "impossible location");
  EXPECT_FAULT(With({DataType::kInt8, {1}, 0, INT64_MAX, 1}), "impossible location");
  EXPECT_EQ(ErrorOf(With({DataType::kInt8, {1}, 0, INT64_MAX - 1, 1})), "");
  EXPECT_FAULT(With({DataType::kInt8, {1}, 0, 0, UINT64_MAX}), "impossible location");
}

TEST(BundleIndexFile, UnknownTypesAreListed) {
  const Catalog catalog = Load(With({static_cast<DataType>(99), {2}, 0, 3, 77}));
  EXPECT_EQ(DataTypeName(catalog.tensors[0].dtype), "DT_99");
}

TEST(BundleIndexFile, MalformedRecordNamesItsTensor) {
  EXPECT_FAULT(BundleBuilder().Put("na\xffme", "\x0b"),
               "tensor 'na\\xffme': malformed index record");
}

TEST(BundleIndexFile, Slices) {
  const Catalog catalog = Load(Sliced({{{2, 2}, {0, 6}}, {{0, 2}, {0, 6}}}));
  ASSERT_EQ(catalog.tensors.size(), 1U);
  const Tensor& w = catalog.tensors[0];
  ASSERT_EQ(w.num_slices, 2U);
  EXPECT_EQ(ToString(catalog.BoxOf(w, catalog.Slices(w)[0])), "[2:4, 0:6]");
  EXPECT_EQ(ToString(catalog.BoxOf(w, catalog.Slices(w)[1])), "[0:2, 0:6]");
}

// Builds a tensor with one slice that is encoded as given.
BundleBuilder OneSlice(const Box& encoded, const Record& record,
                       std::vector<int64_t> dims = {4, 6}) {
  BundleBuilder builder;
  builder.Put(SliceKey("w", encoded), record.Message());
  return builder.Put("w", Record{.dims = std::move(dims), .slices = {encoded}}.Message());
}

TEST(BundleIndexFile, NormalizesWholeAxes) {
  const Catalog catalog = Load(OneSlice({{1, 2}, kAll}, {DataType::kFloat, {2, 6}, 0, 0, 48}));
  EXPECT_EQ(ToString(catalog.BoxOf(catalog.tensors[0], catalog.slices[0])), "[1:3, 0:6]");
}

TEST(BundleIndexFile, SlicesMustBeInsideTheTensor) {
  const Record record{DataType::kFloat, {2, 6}, 0, 0, 48};
  for (const Extent bad : {Extent{3, 2}, Extent{5, 1}, Extent{-1, 2}, Extent{0, 0}, Extent{0, -2},
                           Extent{1, kFullLength}, Extent{INT64_MAX, 2}, Extent{2, INT64_MAX},
                           Extent{INT64_MIN, INT64_MIN}}) {
    EXPECT_FAULT(OneSlice({bad, kAll}, record), "a slice takes") << bad.start << " " << bad.length;
  }
  EXPECT_EQ(ErrorOf(OneSlice({{0, 0}, kAll}, {DataType::kFloat, {0, 6}}, {0, 6})), "");
  EXPECT_FAULT(OneSlice({{1, 0}, kAll}, {DataType::kFloat, {0, 6}}, {0, 6}), "a slice takes");
}

TEST(BundleIndexFile, SliceRecordsMustMatchTheSlice) {
  const Box box = {{0, 2}, {0, 6}};
  EXPECT_EQ(ErrorOf(OneSlice(box, {DataType::kFloat, {2, 6}, 0, 0, 48})), "");
  EXPECT_FAULT(OneSlice(box, {DataType::kFloat, {6, 2}, 0, 0, 48}), "not that slice")
      << "transposed";
  EXPECT_FAULT(OneSlice(box, {DataType::kFloat, {1, 6}, 0, 0, 24}), "not that slice");
  EXPECT_FAULT(OneSlice(box, {DataType::kFloat, {12}, 0, 0, 48}), "not that slice");
  EXPECT_FAULT(OneSlice(box, {DataType::kInt32, {2, 6}, 0, 0, 48}), "not that slice");
  EXPECT_FAULT(OneSlice(box, {.dims = {2, 6}, .slices = {box}}), "not that slice")
      << "has slices itself";
  EXPECT_FAULT(OneSlice(box, {DataType::kFloat, {2, 6}, 0, 0, 47}), "cannot take 47 bytes");
  EXPECT_FAULT(OneSlice(box, {DataType::kFloat, {2, 6}, 1, 0, 48}), "shard 1 of 1");
}

TEST(BundleIndexFile, SlicesWithoutRecordOrTwice) {
  const Box box = {{0, 2}, {0, 6}};
  EXPECT_FAULT(Sliced({box, {{2, 2}, {0, 6}}}).Remove(SliceKey("w", box)),
               "lists slice [0:2, 0:6] but has no record of it");
  BundleBuilder twice = Sliced({box});
  twice.Put("w", Record{.dims = {4, 6}, .slices = {box, box}}.Message());
  EXPECT_FAULT(twice, "slice [0:2, 0:6] is listed twice");
}

TEST(BundleIndexFile, WarnsOfUnlistedSliceRecords) {
  const Box box = {{0, 2}, {0, 6}};
  BundleBuilder builder = Sliced({box});
  builder.Put("w", Record{DataType::kFloat, {}, 0, 0, 4}.Message());
  const Catalog catalog = Load(builder);
  EXPECT_EQ(catalog.tensors.size(), 1U);
  ASSERT_EQ(catalog.warnings.size(), 1U);
  EXPECT_NE(catalog.warnings[0].find("1 slice records"), std::string::npos);
  EXPECT_FAULT(builder.Put(SliceKey("w", box), "\x0b"), "malformed index record");
}

TEST(BundleIndexFile, NamesThatStartLikeSliceKeys) {
  const std::string name("\0w\0\1\1", 5);
  const Catalog catalog = Load(BundleBuilder().Add(name, DataType::kInt8, {1}, "x"));
  ASSERT_EQ(catalog.tensors.size(), 1U);
  EXPECT_EQ(catalog.tensors[0].name, name);
}

TEST(BundleIndexFile, FromDisk) {
  const TempDir dir;
  EXPECT_THROW(ReadBundleIndex(dir / "none"), CheckpointNotFoundError);
  BundleBuilder builder;
  builder.Add("a", DataType::kInt8, {1}, "x").Write(dir / "p");
  const BundleIndex index = ReadBundleIndex(dir / "p");
  EXPECT_EQ(index.catalog.files[0], dir / "p.data-00000-of-00001");
  EXPECT_EQ(ReadBundleIndex(dir / "p").checksum, index.checksum);
  builder.Put("a", Record{DataType::kInt8, {1}, 0, 0, 1, 7}.Message()).Write(dir / "p");
  EXPECT_NE(ReadBundleIndex(dir / "p").checksum, index.checksum);
}

// Slice records come long before the tensor that lists them, in blocks that are no longer in
// memory.
TEST(BundleIndexFile, SlicesFromManyBlocks) {
  const TempDir dir;
  BundleBuilder builder;
  std::vector<Box> slices;
  for (int64_t i = 0; i < 40; ++i) slices.push_back({{i, 1}, {0, 6}});
  for (const char* name : {"a", "z"}) {
    const std::string early =
        std::string("\0", 1) + name;  // sorts before the slices of other tensors
    builder.AddSliced(early, DataType::kInt8, {40, 6}, std::string(240, 'x'), slices);
    builder.AddSliced(name, DataType::kInt8, {40, 6}, std::string(240, 'x'), slices);
  }
  dir.Write("p.index", builder.Index(/*block_size=*/100));
  const Catalog catalog = ReadBundleIndex(dir / "p").catalog;
  ASSERT_EQ(catalog.tensors.size(), 4U);
  for (const Tensor& tensor : catalog.tensors) {
    ASSERT_EQ(tensor.num_slices, 40U);
    for (size_t i = 0; i < 40; ++i) {
      EXPECT_EQ(catalog.BoxOf(tensor, catalog.Slices(tensor)[i])[0].start, static_cast<int64_t>(i));
    }
  }
  EXPECT_EQ(catalog.Find(std::string_view("\0a", 2)), 0U);
  EXPECT_TRUE(catalog.warnings.empty());
}

TEST(BundleIndexFile, HugeFilesAreNotRead) {
  const TempDir dir;
  std::filesystem::resize_file(dir.Write("p.index", ""), (uint64_t{1} << 30) + 1);  // sparse
  EXPECT_THROW(ReadBundleIndex(dir / "p"), UnsupportedError);
}

TEST(BundleIndexFile, ManySlicesInNearLinearTime) {
  std::vector<Box> slices;
  const int64_t rows = 100'000;
  for (int64_t row = 0; row < rows; ++row) slices.push_back({{row, 1}, {0, 1}});
  BundleBuilder builder;
  for (const Box& slice : slices) {
    builder.Put(SliceKey("w", slice), Record{DataType::kInt8, {1, 1}, 0, 0, 1}.Message());
  }
  builder.Put("w", Record{.dtype = DataType::kInt8, .dims = {rows, 1}, .slices = slices}.Message());
  EXPECT_EQ(Load(builder).slices.size(), static_cast<size_t>(rows));
}

TEST(BundleIndexFile, ShardNames) {
  EXPECT_EQ(DataFilePath("p", 0, 1), "p.data-00000-of-00001");
  EXPECT_EQ(DataFilePath("p", 123456, 1000000), "p.data-123456-of-1000000");
}

}  // namespace
}  // namespace tensorbundle
