// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/slice_key.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tensorbundle {
namespace {

std::string FromHex(std::string_view hex) {
  std::string bytes;
  int digits = 0;
  int value = 0;
  for (const char c : hex) {
    if (c == ' ') continue;
    value = value << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    if (++digits % 2 == 0) {
      bytes.push_back(static_cast<char>(value));
      value = 0;
    }
  }
  return bytes;
}

std::string SignedNum(int64_t value) {
  std::string bytes;
  AppendSignedNum(value, &bytes);
  return bytes;
}

std::string NumIncreasing(uint64_t value) {
  std::string bytes;
  AppendNumIncreasing(value, &bytes);
  return bytes;
}

// The numbers at which encodings change their size, and their neighbours.
std::vector<int64_t> Edges() {
  std::vector<int64_t> values = {0, INT64_MIN, INT64_MIN + 1, INT64_MAX};
  for (int bits = 6; bits < 63; bits += 7) {
    const int64_t edge = int64_t{1} << bits;
    for (const int64_t beside : {edge - 1, edge, edge + 1}) {
      values.push_back(beside);
      values.push_back(-beside);
    }
  }
  return values;
}

TEST(OrderedCode, SignedNum) {
  const std::pair<int64_t, const char*> vectors[] = {
      {0, "80"},
      {1, "81"},
      {63, "bf"},
      {64, "c0 40"},
      {100, "c0 64"},
      {200, "c0 c8"},
      {8191, "df ff"},
      {8192, "e0 20 00"},
      {-1, "7f"},
      {-64, "40"},
      {-65, "3f bf"},
      {int64_t{1} << 20, "f0 10 00 00"},
      {int64_t{1} << 27, "f8 08 00 00 00"},
      {int64_t{1} << 34, "fc 04 00 00 00 00"},
      {int64_t{1} << 41, "fe 02 00 00 00 00 00"},
      {int64_t{1} << 48, "ff 01 00 00 00 00 00 00"},
      {int64_t{1} << 55, "ff 80 80 00 00 00 00 00 00"},
      {(int64_t{1} << 62) - 1, "ff bf ff ff ff ff ff ff ff"},
      {int64_t{1} << 62, "ff c0 40 00 00 00 00 00 00 00"},
      {INT64_MAX - 2, "ff c0 7f ff ff ff ff ff ff fd"},
      {INT64_MIN, "00 3f 80 00 00 00 00 00 00 00"},
  };
  for (const auto& [value, hex] : vectors) EXPECT_EQ(SignedNum(value), FromHex(hex)) << value;
}

TEST(OrderedCode, NumIncreasing) {
  EXPECT_EQ(NumIncreasing(0), FromHex("00"));
  EXPECT_EQ(NumIncreasing(1), FromHex("01 01"));
  EXPECT_EQ(NumIncreasing(255), FromHex("01 ff"));
  EXPECT_EQ(NumIncreasing(256), FromHex("02 01 00"));
  EXPECT_EQ(NumIncreasing(UINT64_MAX), FromHex("08 ff ff ff ff ff ff ff ff"));
}

TEST(OrderedCode, KeepsTheOrder) {
  std::vector<int64_t> values = Edges();
  std::mt19937_64 random(5);
  for (int i = 0; i < 1000; ++i) values.push_back(static_cast<int64_t>(random() >> random() % 64));
  for (size_t i = 1; i < values.size(); ++i) {
    const int64_t a = values[i - 1];
    const int64_t b = values[i];
    EXPECT_EQ(a < b, SignedNum(a) < SignedNum(b)) << a << " " << b;
    const auto ua = static_cast<uint64_t>(a);
    const auto ub = static_cast<uint64_t>(b);
    EXPECT_EQ(ua < ub, NumIncreasing(ua) < NumIncreasing(ub)) << ua << " " << ub;
  }
}

TEST(OrderedCode, KeysThatTensorFlowWrote) {
  const Extent all{0, kFullLength};
  EXPECT_EQ(SliceKey("w", std::vector<Extent>{{0, 2}, all}),
            FromHex("00 77 00 01 01 02 80 82 80 7f"));
  EXPECT_EQ(SliceKey("w", std::vector<Extent>{{2, 2}, {3, 3}}),
            FromHex("00 77 00 01 01 02 82 82 83 83"));
  EXPECT_EQ(SliceKey("v", std::vector<Extent>{{100, 200}, all}),
            FromHex("00 76 00 01 01 02 c0 64 c0 c8 80 7f"));
  EXPECT_EQ(SliceKey(FromHex("6b ff 00 01"), std::vector<Extent>{{100, 200}}),
            FromHex("00 6b ff 00 00 ff 01 00 01 01 01 c0 64 c0 c8"));
  EXPECT_EQ(SliceKey("sc", {}), FromHex("00 73 63 00 01 00"));
}

TEST(OrderedCode, RecognizesCompleteSliceKeysOnly) {
  std::mt19937_64 random(6);
  const std::vector<int64_t> edges = Edges();
  for (int round = 0; round < 500; ++round) {
    std::string name(random() % 6, '\0');
    for (char& c : name)
      c = "\x00\x01"
          "a\xfe\xff"[random() % 5];
    std::vector<Extent> extents(random() % 5);
    for (Extent& extent : extents) {
      extent = {edges[random() % edges.size()], edges[random() % edges.size()]};
    }
    const std::string key = SliceKey(name, extents);
    EXPECT_TRUE(IsSliceKey(key));
    for (size_t size = 0; size < key.size(); ++size) {
      EXPECT_FALSE(IsSliceKey(std::string_view(key).substr(0, size))) << size;
    }
    EXPECT_FALSE(IsSliceKey(key + '\x80'));
  }
}

TEST(OrderedCode, RefusesOtherKeys) {
  for (const char* hex :
       {"", "61", "00", "00 61", "00 00", "00 61 00 02 00", "00 61 ff 01 00 01 00",
        "01 00 00 01 00", "00 61 00 01 09 01 01 01 01 01 01 01 01 01",
        "00 61 00 01 08 ff ff ff ff ff ff ff ff 80 80", "00 61 00 01 01 01 ff",
        "00 61 00 01 01 01 80 ff ff", "00 61 00 01 01 01 80 00 00"}) {
    EXPECT_FALSE(IsSliceKey(FromHex(hex))) << hex;
  }
}

}  // namespace
}  // namespace tensorbundle
