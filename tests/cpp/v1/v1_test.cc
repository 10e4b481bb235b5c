// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/v1_checkpoint.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tensorbundle/base/parallel.h"
#include "v1_writer.h"

namespace tensorbundle {
namespace {

using testing::AppendVarint;
using testing::BytesField;
using testing::Elements;
using testing::Find;
using testing::Floats;
using testing::kAll;
using testing::ListingProto;
using testing::Mixture;
using testing::Raw;
using testing::ReadAll;
using testing::TableBuilder;
using testing::V1Test;
using testing::V1Writer;
using testing::VarintField;
using testing::Varints;

struct DtypeCase {
  DataType dtype;
  std::string values;  // TensorProto
  std::string unpacked;
  std::string elements;
  bool dense = false;
};

template <typename T>
DtypeCase VarintCase(DataType dtype, uint32_t field, const std::vector<T>& values) {
  std::string unpacked;
  for (const T value : values) {
    unpacked += VarintField(field, static_cast<uint64_t>(static_cast<int64_t>(value)));
  }
  return {dtype, Varints(field, {values.begin(), values.end()}), unpacked, Raw(values)};
}

template <typename T>
DtypeCase FixedCase(DataType dtype, uint32_t field, const std::vector<T>& values) {
  std::string unpacked;
  for (const T value : values) {
    AppendVarint(field << 3 | (sizeof(T) == 4 ? 5 : 1), &unpacked);
    unpacked += Raw(std::vector<T>{value});
  }
  return {dtype, BytesField(field, Raw(values)), unpacked, Raw(values), true};
}

std::vector<DtypeCase> AllDtypes() {
  using std::numeric_limits;
  const std::vector<uint8_t> bytes = {0, 127, 255};
  const std::vector<int8_t> small = {-128, 0, 127};
  const std::vector<uint16_t> words = {0, 300, 65535};
  const std::vector<int32_t> ints = {INT32_MIN, -1, INT32_MAX};
  return {
      FixedCase<float>(DataType::kFloat, 5, {1.5f, -0.0f, numeric_limits<float>::quiet_NaN()}),
      FixedCase<double>(DataType::kDouble, 6, {1e300, -2, 0}),
      FixedCase<float>(DataType::kComplex64, 9, {1, 2, 3, 4, 5, 6}),
      FixedCase<double>(DataType::kComplex128, 12, {1, 2, 3, 4, 5, 6}),
      VarintCase<int32_t>(DataType::kInt32, 7, ints),
      VarintCase<int32_t>(DataType::kQint32, 7, ints),
      VarintCase<uint8_t>(DataType::kUint8, 7, bytes),
      VarintCase<uint8_t>(DataType::kQuint8, 7, bytes),
      VarintCase<int8_t>(DataType::kInt8, 7, small),
      VarintCase<int8_t>(DataType::kQint8, 7, small),
      VarintCase<int16_t>(DataType::kInt16, 7, {INT16_MIN, -1, INT16_MAX}),
      VarintCase<uint16_t>(DataType::kUint16, 7, words),
      VarintCase<uint16_t>(DataType::kQuint16, 7, words),
      VarintCase<uint16_t>(DataType::kHalf, 13, {0xbc00, 0, 0xffff}),
      VarintCase<int64_t>(DataType::kInt64, 10, {INT64_MIN, 5, INT64_MAX}),
      VarintCase<uint8_t>(DataType::kBool, 11, {1, 0, 1}),
  };
}

TEST_F(V1Test, EveryDtypePackedAndNot) {
  for (const DtypeCase& one : AllDtypes()) {
    SCOPED_TRACE(DataTypeName(one.dtype));
    V1Writer writer;
    writer.Add("p", one.dtype, {3}, one.values);
    writer.Add("u", one.dtype, {3}, one.unpacked);
    const auto checkpoint = Open(writer.Finish());
    EXPECT_EQ(Elements(*checkpoint, "p"), one.elements);
    EXPECT_EQ(Elements(*checkpoint, "u"), one.elements);
    const Tensor& packed = Find(*checkpoint, "p");
    EXPECT_EQ(packed.dtype, one.dtype);
    EXPECT_EQ(packed.num_elements, 3u);
    const bool dense = checkpoint->catalog().Slices(packed)[0].encoding == Encoding::kDense;
    EXPECT_EQ(dense, one.dense);
  }
}

TEST_F(V1Test, Strings) {
  V1Writer writer;
  writer.Add("s", DataType::kString, {2, 1},
             BytesField(8, "") + BytesField(8, std::string("a\0b", 3)));
  writer.Add("none", DataType::kString, {0}, "");
  const auto checkpoint = Open(writer.Finish());
  const auto read = [&](const std::string& name) {
    const Tensor& tensor = Find(*checkpoint, name);
    return checkpoint->records()->DecodeStrings(tensor, checkpoint->catalog().Slices(tensor)[0]);
  };
  EXPECT_EQ(read("s"), (std::vector<std::string>{"", std::string("a\0b", 3)}));
  EXPECT_TRUE(read("none").empty());
}

TEST_F(V1Test, ScalarsAndEmptyTensors) {
  V1Writer writer;
  writer.Add("scalar", DataType::kFloat, {}, Floats({7}));
  writer.Add("empty", DataType::kFloat, {2, 0}, "");
  const auto checkpoint = Open(writer.Finish());
  EXPECT_EQ(Elements(*checkpoint, "scalar"), Raw<float>({7}));
  EXPECT_EQ(Elements(*checkpoint, "empty"), "");
  EXPECT_EQ(Find(*checkpoint, "empty").num_elements, 0u);
}

TEST_F(V1Test, ManyTensorsInBlocksOfAllSizes) {
  V1Writer writer;
  for (int i = 0; i < 200; ++i) {
    const std::string name = "layer/" + std::to_string(i * 7919 % 200);
    const std::vector<float> values(static_cast<size_t>(i % 50) * 9 + 1, static_cast<float>(i));
    writer.Add(name, DataType::kFloat, {static_cast<int64_t>(values.size())}, Floats(values));
    writer.Add(name + "/step", DataType::kInt64, {}, Varints(10, {i}));
  }
  for (const size_t block_size : {size_t{1}, size_t{700}, size_t{5000}, size_t{1} << 20}) {
    const auto checkpoint = Open(writer.Finish(block_size));
    ASSERT_EQ(checkpoint->catalog().tensors.size(), 400u);
    for (const Tensor& tensor : checkpoint->catalog().tensors) {
      const bool dense = checkpoint->catalog().Slices(tensor)[0].encoding == Encoding::kDense;
      ASSERT_EQ(dense, tensor.dtype == DataType::kFloat) << tensor.name << ", " << block_size;
    }
    ReadAll(*checkpoint);
    EXPECT_EQ(Elements(*checkpoint, "layer/0"), Raw(std::vector<float>(1, 0.0f)));
    EXPECT_EQ(Elements(*checkpoint, "layer/199/step"), Raw(std::vector<int64_t>{121}));
  }
}

TEST_F(V1Test, ManyThreads) {
  const auto checkpoint = Open(Mixture().Finish(60));
  const std::string expected = ReadAll(*checkpoint);
  ParallelFor(64, 4, [&](size_t i) {
    if (i % 8 == 0) checkpoint->records()->Forget();
    EXPECT_EQ(ReadAll(*checkpoint), expected);
  });
}

TEST_F(V1Test, SlicesOverShards) {
  const Box top = {{0, 2}, kAll}, bottom = {{2, 1}, {0, 2}};
  V1Writer first, second;
  first.List("w", DataType::kFloat, {3, 2}, {top});
  first.Store("w", top, Floats({1, 2, 3, 4}));
  second.List("w", DataType::kFloat, {3, 2}, {bottom});
  second.Store("w", bottom, Floats({5, 6}));
  second.Add("a", DataType::kInt32, {2}, Varints(7, {-1, 1}));
  const auto checkpoint =
      OpenV1({Write(first.Finish(), "c-0"), Write(second.Finish(), "c-1")}, IoMode::kPread);
  const Catalog& catalog = checkpoint->catalog();
  ASSERT_EQ(catalog.tensors.size(), 2u);
  EXPECT_EQ(catalog.tensors[0].name, "a");
  const Tensor& w = Find(*checkpoint, "w");
  ASSERT_EQ(w.num_slices, 2u);
  const auto slices = catalog.Slices(w);
  EXPECT_EQ(catalog.BoxOf(w, slices[0]), (Box{{0, 2}, {0, 2}}));
  EXPECT_EQ(catalog.BoxOf(w, slices[1]), (Box{{2, 1}, {0, 2}}));
  EXPECT_EQ(slices[0].file, 0u);
  EXPECT_EQ(slices[1].file, 1u);
  EXPECT_EQ(Elements(*checkpoint, w, slices[0]), Raw<float>({1, 2, 3, 4}));
  EXPECT_EQ(Elements(*checkpoint, w, slices[1]), Raw<float>({5, 6}));
  EXPECT_EQ(slices[0].encoding, Encoding::kDense);
  EXPECT_FALSE(slices[0].has_checksum);
}

TEST_F(V1Test, ChecksumDiffersBetweenSaves) {
  V1Writer one, other;
  one.Add("f", DataType::kFloat, {1}, Floats({1}));
  other.Add("f", DataType::kFloat, {1}, Floats({2}));
  const uint32_t checksum = Open(one.Finish())->index_checksum();
  EXPECT_EQ(Open(one.Finish())->index_checksum(), checksum);
  EXPECT_NE(Open(other.Finish())->index_checksum(), checksum);
}

TEST_F(V1Test, TypesThatV1CannotStore) {
  V1Writer writer;
  writer.Add("b", static_cast<DataType>(14), {1}, Varints(13, {1}));
  writer.Add("new", static_cast<DataType>(99), {1}, "");
  const auto checkpoint = Open(writer.Finish());
  EXPECT_THROW(Elements(*checkpoint, "b"), UnsupportedError);
  EXPECT_THROW(Elements(*checkpoint, "new"), UnsupportedError);
}

TEST_F(V1Test, Versions) {
  V1Writer newer;
  newer.meta = BytesField(2, VarintField(1, 5) + VarintField(2, 2));
  TableBuilder table;
  table.Add("", BytesField(1, newer.meta));
  EXPECT_THROW(Open(table.Finish()), UnsupportedError);
  TableBuilder old;
  old.Add("", BytesField(1, ListingProto("w", DataType::kFloat, {}, {{}})));
  EXPECT_EQ(Open(old.Finish())->catalog().tensors.size(), 1u);
}

TEST_F(V1Test, CompressedBlocks) {
  const std::string plain = Mixture().Finish(60);
  const std::string expected = ReadAll(*Open(plain));
  const auto checkpoint = Open(Mixture().Finish(60, true));
  for (const StoredSlice& slice : checkpoint->catalog().slices)
    EXPECT_EQ(slice.encoding, Encoding::kRecord);
  EXPECT_EQ(ReadAll(*checkpoint), expected);
}

}  // namespace
}  // namespace tensorbundle
