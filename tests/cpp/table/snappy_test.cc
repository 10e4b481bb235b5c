// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/snappy.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "table_builder.h"

namespace tensorbundle {
namespace {

std::optional<std::string> Uncompress(std::string_view compressed) {
  const auto bytes = SnappyUncompress(AsBytes(compressed));
  if (!bytes) return std::nullopt;
  return std::string(bytes->begin(), bytes->end());
}

// A stream that states an output of `size` bytes.
std::string Stream(uint64_t size, std::string_view elements) {
  std::string stream;
  testing::AppendVarint(size, &stream);
  return stream.append(elements);
}

// A literal whose length is encoded in `width` bytes after the tag; 0: in the tag.
std::string Literal(std::string_view text, int width = 0) {
  std::string element;
  if (width == 0) {
    element.push_back(static_cast<char>((text.size() - 1) << 2));
  } else {
    element.push_back(static_cast<char>((59 + width) << 2));
    for (int i = 0; i < width; ++i) {
      element.push_back(static_cast<char>((text.size() - 1) >> (8 * i)));
    }
  }
  return element.append(text);
}

std::string Copy(size_t length, uint32_t offset, int width) {
  std::string element;
  if (width == 1) {
    element.push_back(static_cast<char>(1 | (length - 4) << 2 | (offset >> 8) << 5));
    element.push_back(static_cast<char>(offset));
    return element;
  }
  element.push_back(static_cast<char>((width == 2 ? 2 : 3) | (length - 1) << 2));
  for (int i = 0; i < width; ++i) element.push_back(static_cast<char>(offset >> (8 * i)));
  return element;
}

TEST(Snappy, Literals) {
  EXPECT_EQ(Uncompress(Stream(0, "")), "");
  EXPECT_EQ(Uncompress(Stream(3, Literal("abc"))), "abc");
  const std::string long_text(1000, 'x');
  for (const int width : {2, 3, 4}) {
    EXPECT_EQ(Uncompress(Stream(1000, Literal(long_text, width))), long_text);
  }
  EXPECT_EQ(Uncompress(Stream(61, Literal(std::string(61, 'y'), 1))), std::string(61, 'y'));
}

TEST(Snappy, CopiesOfEveryWidth) {
  for (const int width : {1, 2, 4}) {
    EXPECT_EQ(Uncompress(Stream(8, Literal("abcd") + Copy(4, 4, width))), "abcdabcd");
    EXPECT_EQ(Uncompress(Stream(9, Literal("ab") + Copy(7, 2, width))), "ababababa")
        << "a copy may overlap what it writes";
  }
  const std::string far(2000, 'z');
  const std::string source = "0123" + far;
  const std::string element = Literal(source, 2);
  EXPECT_EQ(Uncompress(Stream(2008, element + Copy(4, 2004, 1))), source + "0123");
  EXPECT_EQ(Uncompress(Stream(2008, element + Copy(4, 2004, 2))), source + "0123");
}

TEST(Snappy, CutAtEveryLength) {
  const std::string stream = Stream(82, Literal("abcd") + Copy(4, 4, 1) + Copy(4, 4, 2) +
                                            Copy(4, 8, 4) + Literal(std::string(66, 'q'), 1));
  ASSERT_TRUE(Uncompress(stream));
  for (size_t size = 0; size < stream.size(); ++size) {
    EXPECT_EQ(Uncompress(stream.substr(0, size)), std::nullopt) << size;
  }
}

TEST(Snappy, OutputMustHaveTheStatedSize) {
  EXPECT_EQ(Uncompress(Stream(2, Literal("abc"))), std::nullopt);
  EXPECT_EQ(Uncompress(Stream(4, Literal("abc"))), std::nullopt);
  EXPECT_EQ(Uncompress(Stream(7, Literal("abcd") + Copy(4, 4, 1))), std::nullopt);
  EXPECT_EQ(Uncompress(Stream(0, Literal("a"))), std::nullopt);
  EXPECT_EQ(Uncompress(""), std::nullopt);
}

TEST(Snappy, CopiesMustStartInsideTheOutput) {
  for (const int width : {1, 2, 4}) {
    EXPECT_EQ(Uncompress(Stream(8, Literal("abcd") + Copy(4, 5, width))), std::nullopt);
    EXPECT_EQ(Uncompress(Stream(8, Literal("abcd") + Copy(4, 0, width))), std::nullopt);
    EXPECT_EQ(Uncompress(Stream(4, Copy(4, 1, width))), std::nullopt);
  }
  EXPECT_EQ(Uncompress(Stream(8, Literal("abcd") + Copy(4, 0xffffffff, 4))), std::nullopt);
}

TEST(Snappy, LiteralLengthsThatWrap) {
  EXPECT_EQ(Uncompress(Stream(1,
                              "\xfc\xff\xff\xff\xff"
                              "a")),
            std::nullopt);
  EXPECT_EQ(Uncompress(Stream(4,
                              "\xf0\xff"
                              "abcd")),
            std::nullopt);
}

TEST(Snappy, RefusesAnImpossibleSize) {
  EXPECT_EQ(Uncompress(Stream(0xffffffff, Literal("abc"))), std::nullopt);
  EXPECT_EQ(Uncompress(Stream(uint64_t{1} << 32, Literal("abc"))), std::nullopt);
  EXPECT_EQ(Uncompress(Stream(1000, Literal("abc"))), std::nullopt);
}

TEST(Snappy, LargestExpansion) {
  std::string elements = Literal("a");
  for (int i = 0; i < 1000; ++i) elements += Copy(64, 1, 2);
  EXPECT_EQ(Uncompress(Stream(64'001, elements)), std::string(64'001, 'a'));
}

TEST(Snappy, RandomBytesNeverExceedTheStatedSize) {
  std::mt19937 random(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string stream(random() % 40, '\0');
    for (char& c : stream) c = static_cast<char>(random());
    if (!stream.empty()) stream[0] = static_cast<char>(random() % 128);
    const auto text = Uncompress(stream);
    if (text) {
      EXPECT_EQ(text->size(), static_cast<size_t>(stream[0]));
    }
  }
}

}  // namespace
}  // namespace tensorbundle
