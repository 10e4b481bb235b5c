// SPDX-License-Identifier: Apache-2.0
// Corrupted V1 checkpoints: the core throws its own exceptions and no others.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "v1_writer.h"

namespace tensorbundle {
namespace {

using testing::BlockPlace;
using testing::BytesField;
using testing::Elements;
using testing::Find;
using testing::Floats;
using testing::kAll;
using testing::ListingProto;
using testing::MessageOf;
using testing::Mixture;
using testing::Raw;
using testing::ReadAll;
using testing::RecordProto;
using testing::SliceMessage;
using testing::TableBuilder;
using testing::V1Test;
using testing::V1Writer;
using testing::VarintField;
using testing::Varints;

TEST_F(V1Test, ShardsThatDisagree) {
  V1Writer base;
  base.List("w", DataType::kFloat, {4}, {{{0, 2}}});
  const std::string path = Write(base.Finish(), "base");
  const auto open_with = [&](const V1Writer& other) {
    return MessageOf(
        [&] { OpenV1({path, Write(V1Writer(other).Finish(), "other")}, IoMode::kAuto); });
  };
  V1Writer shape, dtype, twin;
  shape.List("w", DataType::kFloat, {5}, {{{2, 2}}});
  dtype.List("w", DataType::kDouble, {4}, {{{2, 2}}});
  twin.List("w", DataType::kFloat, {4}, {{{2, 2}}, {{0, 2}}});
  EXPECT_NE(open_with(shape).find("'w': its type DT_FLOAT and shape (5) are not"),
            std::string::npos);
  EXPECT_NE(open_with(dtype).find("DT_DOUBLE"), std::string::npos);
  EXPECT_NE(open_with(twin).find("'w': slice [0:2] is listed twice"), std::string::npos);
}

TEST_F(V1Test, DuplicateSlicesWithDifferentEncodings) {
  V1Writer writer;
  writer.List("w", DataType::kFloat, {4}, {{kAll}, {{0, 4}}});
  EXPECT_NE(MessageOf([&] { Open(writer.Finish()); }).find("listed twice"), std::string::npos);
}

TEST_F(V1Test, ImpossibleMetas) {
  constexpr int64_t kHuge = INT64_MAX / 2;
  const std::map<std::string, std::string> metas = {
      {"negative dimension", ListingProto("w", DataType::kFloat, {-1}, {{kAll}})},
      {"overflow", ListingProto("w", DataType::kFloat, {kHuge, 4}, {{kAll, kAll}})},
      {"bytes overflow", ListingProto("w", DataType::kComplex128, {kHuge}, {{kAll}})},
      {"bytes beyond the range of int64",
       ListingProto("w", DataType::kComplex128, {int64_t{1} << 59}, {{kAll}})},
      {"no name", BytesField(1, VarintField(3, 1))},
      {"more than the block", ListingProto("w", DataType::kFloat, {1 << 20}, {{kAll}})},
      {"other rank", ListingProto("w", DataType::kFloat, {4}, {{kAll, kAll}})},
      {"mixed ranks", ListingProto("w", DataType::kFloat, {4}, {{kAll}, {}})},
      {"beyond the end", ListingProto("w", DataType::kFloat, {4}, {{{3, 2}}})},
      {"wraps", ListingProto("w", DataType::kFloat, {4}, {{{INT64_MAX, INT64_MAX}}})},
      {"negative start", ListingProto("w", DataType::kFloat, {4}, {{{-1, 2}}})},
      {"no length", ListingProto("w", DataType::kFloat, {4}, {{{1, 0}}})},
      {"start of a whole axis", ListingProto("w", DataType::kFloat, {4}, {{{1, kFullLength}}})},
      {"two names", BytesField(1, BytesField(1, "w") + BytesField(1, "w"))},
      {"name of no bytes", ListingProto("", DataType::kFloat, {}, {{}})},
      {"dtype of 40 bits",
       ListingProto("w", static_cast<DataType>(-1), {}, {{}}) +
           BytesField(1, BytesField(1, "w") + VarintField(3, uint64_t{1} << 40))},
      {"dtype as bytes", BytesField(1, BytesField(1, "w") + BytesField(3, "f"))},
      {"not a message", BytesField(1, "\x0a\x7f")},
  };
  for (const auto& [what, meta] : metas) {
    V1Writer writer;
    writer.meta = meta;
    const std::string error = MessageOf([&] { Open(writer.Finish()); });
    EXPECT_NE(error.find("ckpt: "), std::string::npos) << what << ": " << error;
  }
}

TEST_F(V1Test, WarnsOfATensorWithoutSlices) {
  V1Writer writer;
  writer.List("w", DataType::kFloat, {4}, {});
  const auto checkpoint = Open(writer.Finish());
  ASSERT_EQ(checkpoint->catalog().warnings.size(), 1u);
  EXPECT_NE(checkpoint->catalog().warnings[0].find("'w' is listed without slices"),
            std::string::npos);
  EXPECT_NE(MessageOf([&] { Elements(*checkpoint, "w"); }).find("no record"), std::string::npos);
}

TEST_F(V1Test, MissingRecordAffectsOnlyItsTensor) {
  V1Writer writer;
  writer.List("gone", DataType::kFloat, {4}, {{kAll}});
  writer.List("zone", DataType::kFloat, {4}, {{kAll}});  // after the last block
  writer.Add("good", DataType::kFloat, {1}, Floats({1}));
  const auto checkpoint = Open(writer.Finish());
  for (const std::string name : {"gone", "zone"}) {
    EXPECT_NE(
        MessageOf([&] { Elements(*checkpoint, name); }).find("'" + name + "': the meta lists it"),
        std::string::npos);
  }
  EXPECT_EQ(Elements(*checkpoint, "good"), Raw<float>({1}));
}

TEST_F(V1Test, WrongRecords) {
  struct Case {
    const char* what;
    DataType dtype;
    std::string values;
    const char* message;
  };
  const std::string torn("\x5a\x01\x83", 3);
  const std::vector<Case> cases = {
      {"too few", DataType::kInt32, Varints(7, {1}), "fewer values"},
      {"too many", DataType::kInt32, Varints(7, {1, 2, 3}), "more values"},
      {"too many floats", DataType::kFloat, Floats({1, 2, 3}), "more values"},
      {"none", DataType::kInt32, "", "fewer values"},
      {"one value for all", DataType::kFloat, Floats({1}), "fewer values"},
      {"other type", DataType::kInt32, Floats({1, 2}), "field 5"},
      {"two types", DataType::kInt32, Varints(7, {1, 2}) + Floats({1}), "field 5"},
      {"tensor_content", DataType::kFloat, BytesField(4, std::string(8, '\0')), "field 4"},
      {"int16", DataType::kInt16, Varints(7, {1, 32768}), "32768, which is no DT_INT16"},
      {"int8", DataType::kInt8, Varints(7, {1, -129}), "-129, which is no DT_INT8"},
      {"uint8", DataType::kUint8, Varints(7, {1, -1}), "no DT_UINT8"},
      {"uint16", DataType::kUint16, Varints(7, {1, 65536}), "no DT_UINT16"},
      {"int32", DataType::kInt32, Varints(7, {1, int64_t{1} << 31}), "no DT_INT32"},
      {"bool", DataType::kBool, Varints(11, {1, 2}), "no DT_BOOL"},
      {"half", DataType::kHalf, Varints(13, {1, 65536}), "no DT_HALF"},
      {"odd complex", DataType::kComplex64, BytesField(9, Raw<float>({1, 2, 3})), "fewer values"},
      {"torn float", DataType::kFloat, BytesField(5, std::string(9, '\0')), "torn"},
      {"torn varint", DataType::kBool, torn, "malformed value"},
      {"varint as fixed", DataType::kInt32, std::string("\x3d\1\0\0\0\x3d\1\0\0\0", 10),
       "wire type"},
      {"group", DataType::kInt32, "\x3b\x3c", "TensorProto"},
      {"string", DataType::kString, BytesField(8, "a"), "fewer values"},
      {"strings", DataType::kString, BytesField(8, "a") + BytesField(8, "") + BytesField(8, ""),
       "more values"},
      {"string of ints", DataType::kString, Varints(7, {1, 2, 3}), "field 7"},
  };
  for (const Case& one : cases) {
    V1Writer writer;
    writer.Add("bad", one.dtype, {2}, one.values);
    writer.Add("good", DataType::kFloat, {1}, Floats({1}));
    const auto checkpoint = Open(writer.Finish());
    const Tensor& bad = Find(*checkpoint, "bad");
    const StoredSlice& slice = checkpoint->catalog().Slices(bad)[0];
    const std::string error = MessageOf([&] { checkpoint->records()->Verify(bad, slice); });
    EXPECT_NE(error.find("ckpt: tensor 'bad'"), std::string::npos) << one.what << ": " << error;
    EXPECT_NE(error.find(one.message), std::string::npos) << one.what << ": " << error;
    EXPECT_EQ(Elements(*checkpoint, "good"), Raw<float>({1})) << one.what;
  }
}

TEST_F(V1Test, RecordOfAnotherTensor) {
  V1Writer writer;
  writer.Add("a", DataType::kFloat, {1}, Floats({1}));
  writer.Add("b", DataType::kFloat, {1}, Floats({2}));
  writer.records[SliceKey("a", Box{kAll})] = writer.records[SliceKey("b", Box{kAll})];
  const auto checkpoint = Open(writer.Finish());
  EXPECT_NE(MessageOf([&] { Elements(*checkpoint, "a"); }).find("another slice, of tensor 'b'"),
            std::string::npos);
  writer.records[SliceKey("a", Box{kAll})] =
      RecordProto("a", {{INT64_MAX, INT64_MAX}}, Floats({1}));
  EXPECT_NE(MessageOf([&] { Elements(*Open(writer.Finish()), "a"); }).find("another slice"),
            std::string::npos);
}

TEST_F(V1Test, RecognizesAV2Index) {
  TableBuilder table;
  table.Add("", VarintField(1, 1));
  EXPECT_NE(MessageOf([&] { Open(table.Finish()); }).find("the index of a V2 checkpoint"),
            std::string::npos);
}

TEST_F(V1Test, OtherTables) {
  TableBuilder other, empty, unnamed, data;
  other.Add("key", "value");
  unnamed.Add("", "\xff");
  data.Add("", BytesField(2, ""));
  for (TableBuilder* table : {&other, &empty, &unnamed, &data}) {
    EXPECT_THROW(Open(table->Finish()), CorruptionError);
  }
  EXPECT_THROW(OpenV1({(folder_ / "none").string()}, IoMode::kAuto), CheckpointNotFoundError);
  EXPECT_THROW(OpenV1({}, IoMode::kAuto), std::invalid_argument);
}

TEST_F(V1Test, MoreKeysThanTheFileCanHold) {
  V1Writer writer;
  std::vector<Box> slices;
  for (int64_t i = 0; i < 20000; ++i) slices.push_back({{i, 1}});
  writer.List(std::string(100000, 'n'), DataType::kFloat, {20000}, slices);
  EXPECT_NE(MessageOf([&] { Open(writer.Finish()); }).find("too long for so many slices"),
            std::string::npos);
}

// A tensor in a small or a large block, which are verified in different ways.
class OverwrittenAfterOpen : public V1Test, public ::testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    V1Test::SetUp();
    values_ = Floats(std::vector<float>(static_cast<size_t>(GetParam()), 1.0f));
    writer_.Add("f", DataType::kFloat, {GetParam()}, values_);
    bytes_ = writer_.Finish(1);
    checkpoint_ = Open(bytes_);
  }
  const StoredSlice& slice() const { return checkpoint_->catalog().slices[0]; }
  void Verify() const { checkpoint_->records()->Verify(Find(*checkpoint_, "f"), slice()); }

  // Rewrites the file with another data block of the same size.
  void ReplaceBlock(const std::string& key, const std::string& value) {
    testing::BlockBuilder block(16);
    block.Add(key, value);
    const std::string replacement = block.Finish();
    const BlockPlace& place = writer_.places[1];
    ASSERT_EQ(replacement.size(), place.size);
    bytes_.replace(place.offset, place.size, replacement);
    TableBuilder::FixChecksum(place, &bytes_);
    Write(bytes_);
    checkpoint_->records()->Forget();
  }

  V1Writer writer_;
  std::string values_;
  std::string bytes_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_P(OverwrittenAfterOpen, CorruptedBytes) {
  ASSERT_EQ(slice().encoding, Encoding::kDense);
  Verify();
  bytes_[slice().offset] = static_cast<char>(bytes_[slice().offset] ^ 1);
  Write(bytes_);
  checkpoint_->records()->Forget();
  const std::string error = MessageOf([&] { Verify(); });
  EXPECT_NE(error.find("CRC32C"), std::string::npos) << error;
  EXPECT_NE(error.find("'f'"), std::string::npos) << error;
}

TEST_P(OverwrittenAfterOpen, RecordWithAnotherEncoding) {
  const std::string slice = BytesField(2, SliceMessage(Box{kAll}));
  ReplaceBlock(SliceKey("f", Box{kAll}),
               BytesField(2, slice + BytesField(1, "f") + BytesField(3, values_)));
  EXPECT_NE(MessageOf([&] { Verify(); }).find("nowhere now"), std::string::npos);
}

// The record is whole, but not where it was found at open.
TEST_F(V1Test, RecordThatHasMoved) {
  const auto finish = [](size_t before, V1Writer* writer) {
    const std::vector<float> ones(2, 1.0f);
    for (const auto& [name, count] :
         {std::pair{"e", before}, {"f", size_t{2}}, {"g", 3 - before}}) {
      writer->List(name, DataType::kFloat, {name == std::string("f") ? 2 : 1}, {});
      writer->Store(name, Box{kAll},
                    Floats({ones.begin(), ones.begin() + static_cast<long>(count)}));
    }
    return writer->Finish(1 << 20);
  };
  V1Writer first;
  V1Writer second;
  const std::string bytes = finish(1, &first);
  const std::string moved = finish(2, &second);
  ASSERT_EQ(bytes.size(), moved.size());
  const auto checkpoint = Open(bytes);
  const Tensor& tensor = Find(*checkpoint, "f");
  const StoredSlice& slice = checkpoint->catalog().Slices(tensor)[0];
  ASSERT_EQ(slice.encoding, Encoding::kDense);
  checkpoint->records()->Verify(tensor, slice);
  Write(moved);
  checkpoint->records()->Forget();
  EXPECT_NE(MessageOf([&] { checkpoint->records()->Verify(tensor, slice); }).find(" now; was"),
            std::string::npos);
}

TEST_P(OverwrittenAfterOpen, RecordIsMissing) {
  ReplaceBlock(SliceKey("e", Box{kAll}), RecordProto("e", {kAll}, values_));
  const std::string error = MessageOf([&] { Verify(); });
  EXPECT_NE(error.find("ckpt: tensor 'f': "), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(SmallAndLarge, OverwrittenAfterOpen, ::testing::Values(2, 1 << 19));

// Runs `body`, which may throw only exceptions of the core. Returns whether it threw.
bool Throws(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error&) {
    return true;
  }
  return false;
}

TEST_F(V1Test, TruncatedAtEverySize) {
  const std::string whole = Mixture().Finish(60);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_TRUE(Throws([&] { Open(whole.substr(0, size)); })) << size;
  }
}

TEST_F(V1Test, EveryByteChanged) {
  for (const size_t block_size : {size_t{60}, size_t{1} << 18}) {
    const std::string whole = Mixture().Finish(block_size);
    const std::string expected = ReadAll(*Open(whole));
    for (size_t at = 0; at < whole.size(); ++at) {
      for (const int change : {0x01, 0x80, 0xff}) {
        std::string corrupted = whole;
        corrupted[at] = static_cast<char>(corrupted[at] ^ change);
        std::string read;
        const bool failed = Throws([&] { read = ReadAll(*Open(corrupted)); });
        // The footer has no checksum: a varint in it may be one byte longer, with a byte of the
        // padding.
        const bool harmless = at + 48 >= whole.size() && read == expected;
        EXPECT_TRUE(failed || harmless) << "byte " << at << ", change " << change;
      }
    }
  }
}

TEST_F(V1Test, EveryByteChangedWithTheChecksumsFixed) {
  for (const size_t block_size : {size_t{60}, size_t{1} << 18}) {
    V1Writer writer = Mixture();
    const std::string whole = writer.Finish(block_size);
    for (const BlockPlace& place : writer.places) {
      for (size_t at = place.offset; at <= place.offset + place.size; ++at) {
        for (const int change : {0x01, 0x02, 0x08, 0x80, 0x7f, 0xff}) {
          std::string corrupted = whole;
          corrupted[at] = static_cast<char>(corrupted[at] ^ change);
          TableBuilder::FixChecksum(place, &corrupted);
          Throws([&] {  // many changes are valid: other values, other names
            const auto checkpoint = Open(corrupted);
            for (const Tensor& tensor : checkpoint->catalog().tensors) {
              for (const StoredSlice& slice : checkpoint->catalog().Slices(tensor)) {
                Throws([&] { checkpoint->records()->Verify(tensor, slice); });
                Throws([&] { checkpoint->records()->DecodeDense(tensor, slice); });
                Throws([&] { checkpoint->records()->DecodeStrings(tensor, slice); });
              }
            }
          });
        }
      }
    }
  }
}

}  // namespace
}  // namespace tensorbundle
