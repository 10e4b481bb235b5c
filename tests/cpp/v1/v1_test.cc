// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/v1_checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/base/parallel.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/prefetch.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/row_readahead.h"
#include "tensorbundle/read/verify.h"
#include "tensorbundle/write/slice_copier.h"
#include "v1_writer.h"

namespace tensorbundle {
namespace {

using testing::AppendVarint;
using testing::BlockPlace;
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

// The readers of src/read read V1 as V2; some slices are decoded.
TEST_F(V1Test, EveryReader) {
  const auto checkpoint = Open(Mixture().Finish());
  const auto bytes_of = [&](const std::string& name) {
    const Tensor& tensor = Find(*checkpoint, name);
    std::string all;
    for (const StoredSlice& slice : checkpoint->catalog().Slices(tensor)) {
      all += Elements(*checkpoint, tensor, slice);
    }
    return all;
  };
  const Tensor& ints = Find(*checkpoint, "ints");  // packed varints: decoded
  const std::string values = bytes_of("ints");
  ASSERT_EQ(values, Raw<int32_t>({-1, 300, 5}));
  std::vector<uint8_t> out(8);
  ReadBox(*checkpoint, ints, {{1, 2}}, out, {});
  EXPECT_EQ(AsText(out), values.substr(4));
  ReadBox(*checkpoint, ints, {{1, 2}}, out, {.fresh = true});
  EXPECT_EQ(AsText(out), values.substr(4));
  const Tensor& cut = Find(*checkpoint, "cut");
  for (const Tensor* tensor : {&ints, &cut}) {
    const StoredSlice& first = checkpoint->catalog().Slices(*tensor)[0];
    EXPECT_NO_THROW(checkpoint->records()->RequireRecord(*tensor, first));
  }
  EXPECT_FALSE(RowReadahead::IsMissing(LayOutRows(*checkpoint, ints), 0)) << "not mapped";
  EXPECT_FALSE(CanCopySlices(*checkpoint));
  std::vector<uint8_t> floats(24);
  for (const bool verify : {false, true}) {
    ReadBox(*checkpoint, cut, {{0, 2}, {0, 3}}, floats, {.verify = verify});
    EXPECT_EQ(AsText(floats), Raw<float>({1, 3, 4, 2, 5, 6}));
  }

  const std::vector<int64_t> ids{2, 0};
  out.resize(8);
  GatherRows(*checkpoint, ints, LayOutRows(*checkpoint, ints), std::span<const int64_t>(ids), {},
             out, 1);
  EXPECT_EQ(AsText(out), values.substr(8) + values.substr(0, 4));

  EXPECT_EQ(ViewTensor(*checkpoint, ints).reason, NoViewReason::kEncoded);
  EXPECT_EQ(CopyOnWriteTensor(*checkpoint, ints).reason, NoViewReason::kEncoded);
  EXPECT_EQ(LocateBox(*checkpoint, ints, {{0, 1}}).reason, NoViewReason::kEncoded);
  const StoredSlice& slice = checkpoint->catalog().Slices(ints)[0];
  EXPECT_EQ(ViewSlice(*checkpoint, ints, slice).reason, NoViewReason::kEncoded);
  const std::vector<FileRange> record{{slice.file, slice.offset, slice.size}};
  EXPECT_EQ(RangesOfBox(*checkpoint, ints, {{1, 1}}), record);
  EXPECT_EQ(RangesOfRows(*checkpoint, ints, std::vector<int64_t>{1}), record);
  const StoredSlice& left = checkpoint->catalog().Slices(cut)[0];
  ASSERT_EQ(left.encoding, Encoding::kDense);
  EXPECT_EQ(AsText(ViewSlice(*checkpoint, cut, left).bytes), Raw<float>({1, 2}));

  const Tensor& text = Find(*checkpoint, "text");
  for (const bool verify : {false, true}) {
    const StringElements strings =
        ReadStrings(*checkpoint, text, checkpoint->catalog().Slices(text)[0], verify);
    ASSERT_EQ(strings.size(), 2u);
    EXPECT_EQ(strings[0], "ab");
    EXPECT_EQ(strings[1], "");
  }
  EXPECT_TRUE(StorageWarnings(*checkpoint).empty());

  // A stream delivers decoded rows, and strings for the consumer to read.
  PrefetchOptions options;
  options.rows = 2;
  for (const char* name : {"cut", "ints", "text"}) {
    options.tensors.push_back(checkpoint->catalog().Find(name));
  }
  for (const bool verify : {false, true}) {
    options.verify = verify;
    Prefetcher stream(checkpoint, options);
    std::string streamed;
    int num_texts = 0;
    StreamItem item;
    for (;;) {
      const Prefetcher::Status status = stream.Next(std::chrono::milliseconds(50), &item);
      if (status == Prefetcher::Status::kEnd) break;
      if (status == Prefetcher::Status::kWaiting) continue;
      num_texts += item.has_bytes ? 0 : 1;
      if (!item.has_bytes) continue;
      const auto size = static_cast<size_t>(item.num_rows) * (streamed.size() < 24 ? 12u : 4u);
      streamed.append(reinterpret_cast<const char*>(item.buffer->data()), size);
    }
    EXPECT_EQ(streamed, Raw<float>({1, 3, 4, 2, 5, 6}) + values);
    EXPECT_EQ(num_texts, 1);
  }
}

// A damaged block is reported for each of its slices.
TEST_F(V1Test, VerifiesBlocks) {
  V1Writer writer = Mixture();
  std::string bytes = writer.Finish(/*block_size=*/1);
  const auto verify = [&] {
    const auto checkpoint = Open(bytes);
    std::vector<size_t> all(checkpoint->catalog().tensors.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    std::vector<std::string> names;
    for (const Corruption& corruption :
         VerifyTensors(*checkpoint, all, 2, [](uint64_t) {}).corruptions) {
      names.emplace_back(checkpoint->catalog().tensors[corruption.tensor].name);
    }
    for (const Tensor& tensor : checkpoint->catalog().tensors) {
      const auto check = [&] { VerifyChecksums(*checkpoint, tensor, UnreadSlices(tensor), 1); };
      if (std::count(names.begin(), names.end(), tensor.name) == 0) {
        EXPECT_NO_THROW(check()) << tensor.name;
      } else {
        EXPECT_THROW(check(), CorruptionError) << tensor.name;
      }
    }
    return names;
  };
  EXPECT_EQ(verify(), std::vector<std::string>{});
  const size_t num_blocks = writer.places.size() - 2;  // without the metaindex and the index
  const BlockPlace last = writer.places[num_blocks - 1];
  bytes[last.offset + last.size - 9] ^= 1;  // the value, before the restarts
  EXPECT_EQ(verify(), std::vector<std::string>{"z"});
}

// Blocks at the same offset of two files are two blocks.
TEST_F(V1Test, VerifiesBlocksOfTwoFiles) {
  V1Writer first, second;
  first.Add("a", DataType::kInt32, {2}, Varints(7, {1, 2}));
  second.Add("b", DataType::kInt32, {2}, Varints(7, {3, 4}));
  const std::string one = first.Finish();
  const std::string two = second.Finish();
  const auto checkpoint = OpenV1({Write(one, "one"), Write(two, "two")}, IoMode::kAuto);
  const VerifyResult both =
      VerifyTensors(*checkpoint, std::vector<size_t>{0, 1}, 1, [](uint64_t) {});
  EXPECT_TRUE(both.corruptions.empty());
  const VerifyResult alone = VerifyTensors(*checkpoint, std::vector<size_t>{0}, 1, [](uint64_t) {});
  EXPECT_EQ(both.num_bytes, 2 * alone.num_bytes);
}

// Blocks of more than a megabyte are not kept in memory: their slices are found by the heads of the
// entries, and verified with the bytes that a reader has read anyway.
TEST_F(V1Test, LargeBlocks) {
  std::vector<float> a(600'000);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i);
  std::vector<float> b(a.rbegin(), a.rend());
  V1Writer writer;
  writer.Add("a", DataType::kFloat, {600'000}, Floats(a));  // in one block with the meta
  writer.Add("b", DataType::kFloat, {600, 1000}, Floats(b));
  for (const bool snappy : {false, true}) {
    const std::string bytes = writer.Finish(1 << 18, snappy);
    for (const bool verify : {false, true}) {
      const auto checkpoint = Open(bytes);
      std::vector<uint8_t> out(2'400'000);
      ReadBox(*checkpoint, Find(*checkpoint, "a"), {{0, 600'000}}, out, {.verify = verify});
      EXPECT_TRUE(AsText(out) == Raw(a));
      ReadBox(*checkpoint, Find(*checkpoint, "b"), {{0, 600}, {0, 1000}}, out, {.verify = verify});
      EXPECT_TRUE(AsText(out) == Raw(b));
      const StoredSlice& slice = checkpoint->catalog().Slices(Find(*checkpoint, "b"))[0];
      EXPECT_EQ(checkpoint->IsVerified(slice), verify && !snappy);
    }
    const auto checkpoint = Open(bytes);
    PrefetchOptions options;
    options.rows = 100;
    options.max_ahead = 1 << 20;
    options.tensors = {checkpoint->catalog().Find("b")};
    Prefetcher stream(checkpoint, options);
    std::string streamed;
    StreamItem item;
    for (;;) {
      const Prefetcher::Status status = stream.Next(std::chrono::milliseconds(50), &item);
      if (status == Prefetcher::Status::kEnd) break;
      if (status == Prefetcher::Status::kWaiting) continue;
      streamed.append(reinterpret_cast<const char*>(item.buffer->data()), 400'000);
    }
    EXPECT_TRUE(streamed == Raw(b));
    EXPECT_TRUE(VerifyTensors(*checkpoint, std::vector<size_t>{0, 1}, 2, [](uint64_t) {
                }).corruptions.empty());
  }
}

TEST_F(V1Test, DamagedLargeBlocks) {
  const std::vector<float> values(600'000, 1);
  V1Writer writer;
  writer.Add("a", DataType::kFloat, {600'000}, Floats(values));
  writer.Add("b", DataType::kFloat, {600'000}, Floats(values));
  const std::string bytes = writer.Finish();
  const auto damaged = [&](size_t block) {
    std::string copy = bytes;
    copy[writer.places[block].offset + writer.places[block].size / 2] ^= 1;
    return copy;
  };
  EXPECT_THROW(Open(damaged(0)), CorruptionError) << "the block of the meta";
  std::string malformed = bytes;
  malformed[writer.places[0].offset] = 1;  // the first key shares a byte with no other
  TableBuilder::FixChecksum(writer.places[0], &malformed);
  EXPECT_THROW(Open(malformed), CorruptionError);
  const auto checkpoint = Open(damaged(1));
  std::vector<uint8_t> out(2'400'000);
  const Tensor& b = Find(*checkpoint, "b");
  EXPECT_NO_THROW(ReadBox(*checkpoint, b, {{0, 600'000}}, out, {.verify = false}));
  EXPECT_THROW(ReadBox(*checkpoint, b, {{0, 600'000}}, out, {}), CorruptionError);
  EXPECT_THROW(VerifyChecksums(*checkpoint, b, UnreadSlices(b), 1), CorruptionError);
  EXPECT_EQ(
      VerifyTensors(*checkpoint, std::vector<size_t>{0, 1}, 2, [](uint64_t) {}).corruptions.size(),
      1u);
}

}  // namespace
}  // namespace tensorbundle
