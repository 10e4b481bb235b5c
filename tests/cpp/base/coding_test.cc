// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/coding.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "table_builder.h"
#include "tensorbundle/base/bytes.h"

namespace tensorbundle {
namespace {

// Every number at which a varint changes its size, and those beside it.
std::vector<uint64_t> Edges() {
  std::vector<uint64_t> values = {0, UINT32_MAX, uint64_t{UINT32_MAX} + 1, UINT64_MAX};
  for (int bits = 7; bits < 64; bits += 7) {
    const uint64_t edge = uint64_t{1} << bits;
    values.insert(values.end(), {edge - 1, edge, edge + 1});
  }
  return values;
}

TEST(Coding, FixedLoadsAreLittleEndianAtAnyAlignment) {
  const uint8_t bytes[] = {0xff, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(LoadFixed32(bytes + 1), 0x04030201U);
  EXPECT_EQ(LoadFixed64(bytes + 1), 0x0807060504030201U);
}

TEST(Coding, FixedRoundTrip) {
  std::string text;
  PutFixed32(0x04030201U, &text);
  PutFixed64(0x0c0b0a0908070605U, &text);
  EXPECT_EQ(text, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c");
}

TEST(Coding, VarintEncodingIsTheShortest) {
  for (const uint64_t value : Edges()) {
    std::string ours;
    std::string expected;
    PutVarint64(value, &ours);
    testing::AppendVarint(value, &expected);
    EXPECT_EQ(ours, expected) << value;
  }
}

TEST(Coding, VarintRoundTripAndEveryTruncation) {
  for (const uint64_t value : Edges()) {
    std::string text;
    testing::AppendVarint(value, &text);
    const ByteSpan bytes = AsBytes(text);
    uint64_t decoded = ~value;
    EXPECT_EQ(DecodeVarint64(bytes.data(), bytes.data() + bytes.size(), &decoded),
              bytes.data() + bytes.size());
    EXPECT_EQ(decoded, value);
    for (size_t size = 0; size < bytes.size(); ++size) {
      uint64_t untouched = 77;
      EXPECT_EQ(DecodeVarint64(bytes.data(), bytes.data() + size, &untouched), nullptr);
      EXPECT_EQ(untouched, 77U);
    }
    uint32_t narrow = 77;
    const uint8_t* end = DecodeVarint32(bytes.data(), bytes.data() + bytes.size(), &narrow);
    EXPECT_EQ(end != nullptr, value <= UINT32_MAX) << value;
    EXPECT_EQ(narrow, value <= UINT32_MAX ? value : 77U);
  }
}

TEST(Coding, VarintLeavesFollowingBytes) {
  const uint8_t bytes[] = {0x05, 0x06};
  uint32_t value = 0;
  EXPECT_EQ(DecodeVarint32(bytes, bytes + 2, &value), bytes + 1);
  EXPECT_EQ(value, 5U);
}

TEST(Coding, RefusesBitsBeyondTheWidth) {
  std::string ten(9, '\xff');
  uint64_t value = 77;
  for (const int last : {0x00, 0x01, 0x02, 0x7f, 0x80, 0xff}) {
    const std::string text = ten + static_cast<char>(last);
    const ByteSpan bytes = AsBytes(text);
    const uint8_t* end = DecodeVarint64(bytes.data(), bytes.data() + bytes.size(), &value);
    EXPECT_EQ(end != nullptr, last <= 1) << last;
  }
  const std::string eleven = std::string(10, '\x80') + '\0';
  EXPECT_EQ(DecodeVarint64(AsBytes(eleven).data(), AsBytes(eleven).data() + 11, &value), nullptr);
}

TEST(Coding, Varint32RefusesSixBytesEvenOfASmallNumber) {
  const std::string padded = std::string(5, '\x80') + '\0';
  uint32_t value = 77;
  EXPECT_EQ(DecodeVarint32(AsBytes(padded).data(), AsBytes(padded).data() + 6, &value), nullptr);
  EXPECT_EQ(value, 77U);
}

TEST(Coding, NullInput) {
  uint64_t wide = 77;
  uint32_t narrow = 77;
  EXPECT_EQ(DecodeVarint64(nullptr, nullptr, &wide), nullptr);
  EXPECT_EQ(DecodeVarint32(nullptr, nullptr, &narrow), nullptr);
}

}  // namespace
}  // namespace tensorbundle
