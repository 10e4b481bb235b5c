// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/messages.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "table_builder.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BytesField;
using testing::Fixed32Field;
using testing::Record;
using testing::ShapeMessage;
using testing::SliceMessage;
using testing::VarintField;

// ---- Entries.

using Dims = std::vector<int64_t>;

bool Decodes(const std::string& message) {
  BundleEntry entry;
  return DecodeBundleEntry(AsBytes(message), &entry);
}

const std::string kShape23 = BytesField(2, ShapeMessage(Dims{2, 3}));

TEST(BundleEntry, EveryField) {
  const Record record{DataType::kInt64, {2, 0, 3}, 4, 5, 6, 7};
  BundleEntry entry;
  entry.slice_extents = {{1, 2}};
  entry.num_slices = 9;
  ASSERT_TRUE(DecodeBundleEntry(AsBytes(record.Message()), &entry));
  EXPECT_EQ(entry.dtype, 9);
  EXPECT_EQ(entry.dims, (Dims{2, 0, 3}));
  EXPECT_EQ(entry.shard, 4);
  EXPECT_EQ(entry.offset, 5);
  EXPECT_EQ(entry.size, 6);
  EXPECT_TRUE(entry.has_checksum);
  EXPECT_EQ(entry.masked_checksum, crc32c::Mask(7));
  EXPECT_EQ(entry.num_slices, 0U) << "of the entry before";
  EXPECT_TRUE(entry.slice_extents.empty());
}

TEST(BundleEntry, RealBytes) {
  // dtype 31, shape (3), size 3 and a checksum, as TensorFlow 2.21 wrote them.
  const std::string message("\x08\x1f\x12\x04\x12\x02\x08\x03\x28\x03\x35\x75\x59\x91\x06", 15);
  BundleEntry entry;
  ASSERT_TRUE(DecodeBundleEntry(AsBytes(message), &entry));
  EXPECT_EQ(entry.dtype, 31);
  EXPECT_EQ(entry.dims, Dims{3});
  EXPECT_EQ(entry.size, 3);
  EXPECT_EQ(entry.masked_checksum, 0x06915975U);
  EXPECT_TRUE(DecodeBundleEntry({}, &entry)) << "all fields have defaults";
  EXPECT_FALSE(entry.has_checksum);
}

// An unknown field in front disables the fast path and changes nothing else.
TEST(BundleEntry, FastPathAgreesWithTheGeneralDecoder) {
  std::mt19937 random(1);
  const std::string unknown = VarintField(15, 1);
  size_t num_good = 0;
  for (int i = 0; i < 100'000; ++i) {
    const Dims dims(random() % 4, static_cast<int64_t>(1) << random() % 40);
    std::string message = Record{static_cast<DataType>(random() % 34),
                                 dims,
                                 static_cast<int32_t>(random() % 3),
                                 uint64_t{random()} << random() % 20,
                                 uint64_t{random() % 1000},
                                 static_cast<uint32_t>(random())}
                              .Message();
    for (size_t faults = random() % 3; faults > 0; --faults) {
      message[random() % message.size()] ^= static_cast<char>(1 << random() % 8);
    }
    BundleEntry quick;
    BundleEntry general;
    const bool good = DecodeBundleEntry(AsBytes(message), &quick);
    num_good += good;
    ASSERT_EQ(good, DecodeBundleEntry(AsBytes(unknown + message), &general));
    if (!good) continue;
    ASSERT_EQ(quick.dtype, general.dtype);
    ASSERT_EQ(quick.dims, general.dims);
    ASSERT_EQ(quick.shard, general.shard);
    ASSERT_EQ(quick.offset, general.offset);
    ASSERT_EQ(quick.size, general.size);
    ASSERT_EQ(quick.has_checksum, general.has_checksum);
    ASSERT_EQ(quick.masked_checksum, general.masked_checksum);
    ASSERT_EQ(quick.slice_extents, general.slice_extents);
  }
  EXPECT_GT(num_good, 50'000U);
}

TEST(BundleEntry, TruncatedAtEverySize) {
  const std::string message = Record{DataType::kInt64, {200, 300}, 4, 5000, 6000, 7}.Message();
  BundleEntry entry;
  for (size_t size = 0; size < message.size(); ++size) {
    if (!DecodeBundleEntry(AsBytes(message).first(size), &entry)) continue;
    EXPECT_FALSE(entry.has_checksum) << "the last field cannot be there";
  }
}

TEST(BundleEntry, Slices) {
  const std::vector<Box> slices = {{{0, 2}, {0, kFullLength}}, {{4, 3}, {0, 4}}};
  BundleEntry entry;
  const Record record{.dims = {7, 4}, .slices = slices};
  ASSERT_TRUE(DecodeBundleEntry(AsBytes(record.Message()), &entry));
  EXPECT_EQ(entry.num_slices, 2U);
  EXPECT_EQ(entry.slice_extents, (Box{{0, 2}, {0, kFullLength}, {4, 3}, {0, 4}}));
  // The same slices as TensorFlow encodes them.
  EXPECT_EQ(SliceMessage(slices[0]), std::string("\x0a\x02\x10\x02\x0a\x00", 6));
  EXPECT_EQ(SliceMessage(slices[1]), std::string("\x0a\x04\x08\x04\x10\x03\x0a\x02\x10\x04", 10));
}

TEST(BundleEntry, EncodesSlicesAsTensorFlow) {
  const Box slices = {{0, 2}, {0, kFullLength}, {4, 3}, {0, 4}, {5, 0}, {0, 0}};
  BundleEntry entry;
  entry.dtype = 1;
  entry.dims = {7, 4};
  entry.num_slices = 3;
  entry.slice_extents = slices;
  const std::string record = EncodeBundleEntry(entry);
  BundleEntry decoded;
  ASSERT_TRUE(DecodeBundleEntry(AsBytes(record), &decoded));
  EXPECT_EQ(decoded.slice_extents, slices);
  EXPECT_NE(record.find(SliceMessage(std::span(slices).first(2))), std::string::npos);
  EXPECT_NE(record.find(SliceMessage(std::span(slices).subspan(4))), std::string::npos);
}

TEST(BundleEntry, RanksMustAgree) {
  const auto slice = [](const Box& box) { return BytesField(7, SliceMessage(box)); };
  EXPECT_TRUE(Decodes(kShape23 + slice({{0, 1}, {0, 1}})));
  EXPECT_FALSE(Decodes(kShape23 + slice({{0, 1}})));
  EXPECT_FALSE(Decodes(kShape23 + slice({})));
  EXPECT_FALSE(Decodes(slice({{0, 1}})));
  EXPECT_TRUE(Decodes(slice({}))) << "a slice of a scalar";
  EXPECT_FALSE(Decodes(kShape23 + slice({{0, 1}, {0, 1}, {0, 1}}) + slice({{0, 1}})))
      << "four extents in all, but not two and two";
  EXPECT_FALSE(Decodes(kShape23 + slice({{0, 1}}) + slice({{0, 1}, {0, 1}})));
}

TEST(BundleEntry, LargeRanks) {
  EXPECT_TRUE(Decodes(BytesField(2, ShapeMessage(Dims(kMaxRank, 1)))));
  EXPECT_FALSE(Decodes(BytesField(2, ShapeMessage(Dims(kMaxRank + 1, 1)))));
  EXPECT_FALSE(Decodes(BytesField(7, SliceMessage(Box(kMaxRank + 1, {0, 1})))));
}

TEST(BundleEntry, Shapes) {
  const auto shape = [](const std::string& message) { return Decodes(BytesField(2, message)); };
  EXPECT_TRUE(shape(""));
  EXPECT_TRUE(shape(BytesField(2, VarintField(1, 2) + BytesField(2, "\xff\xfe not UTF-8"))));
  EXPECT_TRUE(shape(VarintField(3, 0)));
  EXPECT_FALSE(shape(VarintField(3, 1))) << "unknown rank";
  EXPECT_FALSE(shape(BytesField(3, "")));
  EXPECT_FALSE(shape(VarintField(2, 1)));
  EXPECT_FALSE(shape(BytesField(2, VarintField(1, 2) + VarintField(1, 2))));
  EXPECT_FALSE(shape(BytesField(2, BytesField(1, ""))));
  BundleEntry entry;
  ASSERT_TRUE(
      DecodeBundleEntry(AsBytes(BytesField(2, BytesField(2, VarintField(1, UINT64_MAX)))), &entry));
  EXPECT_EQ(entry.dims, Dims{-1}) << "negative sizes are for the caller to refuse";
}

TEST(BundleEntry, Extents) {
  const auto extent = [](const std::string& message) {
    return Decodes(BytesField(2, ShapeMessage(Dims{2})) + BytesField(7, BytesField(1, message)));
  };
  EXPECT_TRUE(extent(""));
  EXPECT_FALSE(extent(VarintField(1, 1) + VarintField(1, 1)));
  EXPECT_FALSE(extent(VarintField(2, 1) + VarintField(2, 1)));
  EXPECT_FALSE(extent(BytesField(1, "")));
  EXPECT_FALSE(extent(Fixed32Field(2, 1)));
}

TEST(BundleEntry, RepeatedAndMistypedFields) {
  EXPECT_TRUE(Decodes(kShape23 + VarintField(8, 1) + BytesField(100, "x"))) << "unknown fields";
  EXPECT_FALSE(Decodes(kShape23 + kShape23));
  EXPECT_FALSE(Decodes(Fixed32Field(6, 1) + Fixed32Field(6, 1)));
  for (const uint32_t field : {1U, 3U, 4U, 5U}) {
    EXPECT_TRUE(Decodes(VarintField(field, 1)));
    EXPECT_FALSE(Decodes(VarintField(field, 1) + VarintField(field, 1))) << field;
    EXPECT_FALSE(Decodes(BytesField(field, "x"))) << field;
    EXPECT_FALSE(Decodes(Fixed32Field(field, 1))) << field;
  }
  for (const uint32_t field : {2U, 6U, 7U}) EXPECT_FALSE(Decodes(VarintField(field, 1))) << field;
  EXPECT_FALSE(Decodes("\x0b\x0c")) << "a group";
}

TEST(BundleEntry, NumbersOutOfRange) {
  for (const uint32_t field : {1U, 3U}) {
    EXPECT_TRUE(Decodes(VarintField(field, UINT64_MAX))) << field;
    EXPECT_FALSE(Decodes(VarintField(field, UINT32_MAX))) << field;
    EXPECT_FALSE(Decodes(VarintField(field, (uint64_t{1} << 32) + 1))) << field;
  }
  EXPECT_TRUE(Decodes(VarintField(4, UINT64_MAX)));
  EXPECT_FALSE(Decodes(VarintField(1, UINT32_MAX) + kShape23)) << "in an otherwise usual record";
  EXPECT_FALSE(Decodes(VarintField(1, 1) + kShape23 + VarintField(3, UINT32_MAX)));
}

// ---- Entries with another offset.

TEST(WithOffset, ReplacesAddsAndRemovesTheOffset) {
  Record record{.dtype = DataType::kInt32, .dims = {2, 3}, .shard = 4, .offset = 300, .size = 24};
  for (const uint64_t from : {uint64_t{0}, uint64_t{300}}) {
    for (const uint64_t to : {uint64_t{0}, uint64_t{64}, uint64_t{INT64_MAX}}) {
      record.offset = from;
      const std::string before = record.Message();
      record.offset = to;
      EXPECT_EQ(WithOffset(AsBytes(before), to), record.Message());
    }
  }
}

TEST(WithOffset, KeepsUnknownFields) {
  const std::string fixed64 = std::string("\x59", 1) + "12345678";  // field 11
  const std::string unknown = BytesField(8, "later") + VarintField(9, 1) + Fixed32Field(10, 2);
  const std::string before = VarintField(1, 3) + VarintField(4, 7) + unknown + fixed64;
  EXPECT_EQ(WithOffset(AsBytes(before), 128),
            VarintField(1, 3) + VarintField(4, 128) + unknown + fixed64);
}

TEST(WithOffset, OffsetAfterAllOtherFields) {
  BundleEntry entry;
  const std::string after = WithOffset(AsBytes(VarintField(1, 3)), 192);
  ASSERT_TRUE(DecodeBundleEntry(AsBytes(after), &entry));
  EXPECT_EQ(entry.offset, 192);
  EXPECT_EQ(entry.dtype, 3);
}

// ---- The header.

BundleHeader DecodeHeader(const std::string& message) {
  return DecodeBundleHeader(AsBytes(message), "p.index");
}

std::string WithVersion(const std::string& version) {
  return VarintField(1, 1) + BytesField(3, version);
}

TEST(BundleHeader, AsTensorFlowWritesIt) {
  const BundleHeader header = DecodeHeader(WithVersion(VarintField(1, 1)));
  EXPECT_EQ(header.num_shards, 1);
  EXPECT_FALSE(header.big_endian);
}

TEST(BundleHeader, ListsOfBadConsumers) {
  EXPECT_EQ(DecodeHeader(WithVersion(VarintField(3, 77))).num_shards, 1);
  EXPECT_EQ(DecodeHeader(WithVersion(BytesField(3, "\x4d\x4e"))).num_shards, 1) << "packed";
  EXPECT_THROW(DecodeHeader(WithVersion(VarintField(3, UINT32_MAX))), CorruptionError);
  EXPECT_THROW(DecodeHeader(WithVersion(Fixed32Field(3, 77))), CorruptionError);
  EXPECT_THROW(DecodeHeader(WithVersion(BytesField(3, "\xff\xff\xff\xff\x0f"))), CorruptionError);
  EXPECT_THROW(DecodeHeader(WithVersion(BytesField(3, "\xff"))), CorruptionError);
}

TEST(BundleHeader, NumberOfShards) {
  EXPECT_EQ(DecodeHeader(VarintField(1, kMaxShards)).num_shards, kMaxShards);
  EXPECT_THROW(DecodeHeader(""), CorruptionError);
  EXPECT_THROW(DecodeHeader(VarintField(1, 0)), CorruptionError);
  EXPECT_THROW(DecodeHeader(VarintField(1, kMaxShards + 1)), CorruptionError);
  EXPECT_THROW(DecodeHeader(VarintField(1, UINT64_MAX)), CorruptionError);
  EXPECT_THROW(DecodeHeader(VarintField(1, (uint64_t{1} << 32) + 1)), CorruptionError);
}

TEST(BundleHeader, ByteOrder) {
  EXPECT_TRUE(DecodeHeader(VarintField(1, 1) + VarintField(2, 1)).big_endian);
  EXPECT_FALSE(DecodeHeader(VarintField(1, 1) + VarintField(2, 0)).big_endian);
  EXPECT_THROW(DecodeHeader(VarintField(1, 1) + VarintField(2, 2)), CorruptionError);
  EXPECT_THROW(DecodeHeader(VarintField(1, 1) + VarintField(2, uint64_t{1} << 32)),
               CorruptionError);
}

TEST(BundleHeader, Versions) {
  EXPECT_NO_THROW(DecodeHeader(WithVersion("")));
  EXPECT_NO_THROW(DecodeHeader(WithVersion(VarintField(1, 99)))) << "a newer producer";
  EXPECT_NO_THROW(DecodeHeader(WithVersion(VarintField(2, 1))));
  EXPECT_NO_THROW(DecodeHeader(WithVersion(VarintField(3, 2) + BytesField(3, "\x03\x04"))));
  EXPECT_THROW(DecodeHeader(WithVersion(VarintField(1, UINT64_MAX))), CorruptionError);
  EXPECT_THROW(DecodeHeader(WithVersion(VarintField(2, 2))), UnsupportedError);
  EXPECT_THROW(DecodeHeader(WithVersion(VarintField(3, 1))), UnsupportedError);
  EXPECT_THROW(DecodeHeader(WithVersion(BytesField(3, "\x03\x01"))), UnsupportedError);
  EXPECT_THROW(DecodeHeader(WithVersion(BytesField(3, "\x80"))), CorruptionError);
  EXPECT_THROW(DecodeHeader(WithVersion("\x08")), CorruptionError);
  EXPECT_NO_THROW(CheckVersion(ByteSpan(), "p.index")) << "an absent version is an old one";
}

TEST(BundleHeader, MistypedAndRepeatedFields) {
  EXPECT_NO_THROW(DecodeHeader(VarintField(1, 1) + VarintField(9, 1)))
      << "unknown fields are skipped";
  EXPECT_THROW(DecodeHeader(VarintField(1, 1) + VarintField(1, 1)), CorruptionError);
  EXPECT_THROW(DecodeHeader(BytesField(1, "\x01")), CorruptionError);
  EXPECT_THROW(DecodeHeader(VarintField(1, 1) + VarintField(3, 1)), CorruptionError);
  EXPECT_THROW(DecodeHeader(Fixed32Field(1, 1)), CorruptionError);
  EXPECT_THROW(DecodeHeader(VarintField(1, 1) + "\x0b"), CorruptionError);
}

// ---- The object graph.

using Names = std::vector<std::pair<std::string_view, std::string_view>>;

std::string Attribute(const std::string& full_name, const std::string& key) {
  return BytesField(
      2, BytesField(1, "VARIABLE_VALUE") + BytesField(2, full_name) + BytesField(3, key));
}

TEST(ObjectGraph, NamesInTheOrderOfTheGraph) {
  const std::string graph =
      BytesField(1, BytesField(1, VarintField(1, 1) + BytesField(2, "child"))) +
      BytesField(1, Attribute("b", "two/.A") + Attribute("a", "one/.A")) +
      BytesField(1, Attribute("c", "three/.A"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names,
            (Names{{"b", "two/.A"}, {"a", "one/.A"}, {"c", "three/.A"}}));
}

TEST(ObjectGraph, AllKeysOfASharedName) {
  const std::string graph =
      BytesField(1, Attribute("a", "one") + Attribute("a", "two") + Attribute("a", "one"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names, (Names{{"a", "one"}, {"a", "two"}, {"a", "one"}}));
}

TEST(ObjectGraph, AttributesWithoutBothNames) {
  const std::string graph = BytesField(1, Attribute("", "key") + Attribute("name", "")) +
                            BytesField(1, BytesField(2, "")) + BytesField(1, Attribute("a", "k"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names, (Names{{"a", "k"}}));
  EXPECT_TRUE(FullNames(AsBytes(graph)).complete);
  EXPECT_TRUE(FullNames({}).names.empty());
  EXPECT_TRUE(FullNames({}).complete);
}

TEST(ObjectGraph, MalformedPartsAreSkipped) {
  const std::string graph =
      BytesField(1, BytesField(2, BytesField(2, "x") + BytesField(3, "y") + "\x0b")) +
      VarintField(1, 7) + BytesField(1, Attribute("a", "k"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names, (Names{{"a", "k"}}));
  EXPECT_FALSE(FullNames(AsBytes(graph)).complete);
}

TEST(ObjectGraph, TruncatedAtEverySize) {
  const std::string graph = BytesField(1, Attribute("a", "k")) + BytesField(1, Attribute("b", "l"));
  for (size_t size = 0; size <= graph.size(); ++size) {
    const FullNameList list = FullNames(AsBytes(graph).first(size));
    EXPECT_LE(list.names.size(), 2U);
    EXPECT_EQ(list.names.size() == 2, size == graph.size()) << size;
    const bool between_nodes = size == 0 || size == graph.size() / 2 || size == graph.size();
    EXPECT_EQ(list.complete, between_nodes) << size;
  }
}

}  // namespace
}  // namespace tensorbundle
