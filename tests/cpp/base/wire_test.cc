// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/wire.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "table_builder.h"

namespace tensorbundle {
namespace {

using testing::AppendVarint;
using testing::BytesField;
using testing::VarintField;

// Whether the whole message is well-formed.
bool WellFormed(std::string_view message) {
  WireReader reader(AsBytes(message));
  WireField field;
  while (reader.Next(&field)) {
  }
  EXPECT_FALSE(reader.Next(&field)) << "moves beyond the end";
  return reader.ok();
}

TEST(Wire, EveryType) {
  const std::string message = VarintField(1, 300) + "\x11" + "abcdefgh" + BytesField(3, "xyz") +
                              "\x25" + std::string("\1\0\0\0", 4);
  WireReader reader(AsBytes(message));
  WireField field;
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_TRUE(field.Is(1, WireType::kVarint));
  EXPECT_EQ(field.value, 300U);
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_TRUE(field.Is(2, WireType::kFixed64));
  EXPECT_EQ(field.value, 0x6867666564636261U);
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_TRUE(field.Is(3, WireType::kBytes));
  EXPECT_EQ(AsText(field.bytes), "xyz");
  EXPECT_EQ(field.value, 0U) << "the value before it";
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_TRUE(field.Is(4, WireType::kFixed32));
  EXPECT_EQ(field.value, 1U);
  EXPECT_TRUE(field.bytes.empty()) << "the bytes before it";
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_TRUE(reader.ok());
}

TEST(Wire, EmptyMessage) {
  EXPECT_TRUE(WellFormed(""));
  WireReader null{ByteSpan()};
  WireField field;
  EXPECT_FALSE(null.Next(&field));
  EXPECT_TRUE(null.ok()) << "an empty message is well-formed at any address";
}

TEST(Wire, TruncatedAnywhereButBetweenFields) {
  const std::string first = VarintField(1, 300);
  const std::string second = BytesField(3, "xyz");
  const std::string third = "\x25" + std::string(4, 'a');
  const std::string fourth = "\x11" + std::string(8, 'a');
  const std::string message = first + second + third + fourth;
  for (size_t size = 0; size <= message.size(); ++size) {
    const bool between = size == 0 || size == first.size() ||
                         size == first.size() + second.size() ||
                         size == message.size() - fourth.size() || size == message.size();
    EXPECT_EQ(WellFormed(std::string_view(message).substr(0, size)), between) << size;
  }
}

TEST(Wire, RefusesGroupsAndUnassignedTypes) {
  for (const int type : {3, 4, 6, 7}) {
    EXPECT_FALSE(WellFormed(std::string(1, static_cast<char>(1 << 3 | type)))) << type;
    std::string message(17, '\0');
    message[0] = static_cast<char>(1 << 3 | type);
    EXPECT_FALSE(WellFormed(message));
  }
}

TEST(Wire, RefusesFieldNumbersOutOfRange) {
  const auto tagged = [](uint64_t number) {
    std::string message;
    AppendVarint(number << 3, &message);
    return message + '\0';
  };
  EXPECT_FALSE(WellFormed(tagged(0)));
  EXPECT_TRUE(WellFormed(tagged((1 << 29) - 1)));
  EXPECT_FALSE(WellFormed(tagged(1 << 29)));
  EXPECT_FALSE(WellFormed(tagged(uint64_t{1} << 32 | 1))) << "a 32-bit tag would read as 1";
}

TEST(Wire, RefusesLengthsBeyondTheMessage) {
  for (const uint64_t size : {uint64_t{4}, uint64_t{1} << 31, uint64_t{1} << 63, UINT64_MAX}) {
    std::string message = "\x1a";
    AppendVarint(size, &message);
    EXPECT_FALSE(WellFormed(message + "xyz")) << size;
  }
}

TEST(Wire, StaysMalformed) {
  WireReader reader(AsBytes(std::string_view("\x0b\x08\x01", 3)));
  WireField field;
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_FALSE(reader.ok());
}

TEST(Wire, Int32) {
  int32_t value = 77;
  EXPECT_TRUE(AsInt32(UINT64_MAX, &value));  // sign-extended -1
  EXPECT_EQ(value, -1);
  EXPECT_TRUE(AsInt32(static_cast<uint64_t>(int64_t{INT32_MIN}), &value));
  EXPECT_EQ(value, INT32_MIN);
  EXPECT_TRUE(AsInt32(INT32_MAX, &value));
  EXPECT_EQ(value, INT32_MAX);
  value = 77;
  EXPECT_FALSE(AsInt32(uint64_t{INT32_MAX} + 1, &value));
  EXPECT_FALSE(AsInt32(UINT32_MAX, &value)) << "-1 without its sign extension";
  EXPECT_FALSE(AsInt32(uint64_t{1} << 32 | 1, &value));
  EXPECT_EQ(value, 77);
}

}  // namespace
}  // namespace tensorbundle
