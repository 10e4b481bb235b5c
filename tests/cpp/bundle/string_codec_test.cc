// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/string_codec.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "table_builder.h"
#include "tensorbundle/base/crc32c.h"

namespace tensorbundle {
namespace {

using testing::AppendFixed32;
using testing::AppendVarint;

struct Stored {
  std::string bytes;
  uint32_t checksum = 0;
};

std::string Number(uint64_t value, size_t width, bool big_endian) {
  std::string text;
  for (size_t i = 0; i < width; ++i) {
    const size_t at = big_endian ? width - 1 - i : i;
    text.push_back(static_cast<char>(value >> (8 * at)));
  }
  return text;
}

uint32_t Crc(const std::string& text) { return crc32c::Value(text.data(), text.size()); }

// Encodes elements as the format describes; `seen` is the input of the checksum.
Stored StoreStrings(const std::vector<std::string>& elements, bool big_endian) {
  Stored stored;
  std::string seen;
  for (const std::string& text : elements) {
    AppendVarint(text.size(), &stored.bytes);
    seen += Number(text.size(), 4, big_endian);
  }
  const std::string checksum = Number(crc32c::Mask(Crc(seen)), 4, big_endian);
  stored.bytes += checksum;
  seen += checksum;
  for (const std::string& text : elements) {
    stored.bytes += text;
    seen += text;
  }
  stored.checksum = Crc(seen);
  return stored;
}

Stored StoreVariants(const std::vector<std::string>& elements) {
  Stored stored;
  std::string seen;
  for (const std::string& text : elements) {
    AppendVarint(text.size(), &stored.bytes);
    seen += Number(text.size(), 8, false) + text;
    const std::string checksum = Number(crc32c::Mask(Crc(seen)), 4, false);
    stored.bytes += text + checksum;
    seen += checksum;
  }
  stored.checksum = Crc(seen);
  return stored;
}

std::optional<uint32_t> InSlices(Encoding encoding, uint64_t count, bool big_endian,
                                 const std::string& bytes, std::mt19937* random) {
  StreamingElements checksum(encoding, count, big_endian);
  for (size_t at = 0; at < bytes.size();) {
    const size_t size = std::min<size_t>(bytes.size() - at, (*random)() % 9);
    checksum.Extend(AsBytes(bytes).subspan(at, size));
    at += size;
  }
  return checksum.Value();
}

std::vector<std::string> RandomElements(std::mt19937* random) {
  std::vector<std::string> elements((*random)() % 8);
  for (std::string& text : elements) {
    text.assign((*random)() % ((*random)() % 4 == 0 ? 400 : 4), static_cast<char>((*random)()));
  }
  return elements;
}

TEST(StreamingElements, AcceptsChunksOfAnySize) {
  std::mt19937 random(1);
  for (int round = 0; round < 500; ++round) {
    const std::vector<std::string> elements = RandomElements(&random);
    for (const bool big_endian : {false, true}) {
      const Stored strings = StoreStrings(elements, big_endian);
      EXPECT_EQ(InSlices(Encoding::kStrings, elements.size(), big_endian, strings.bytes, &random),
                strings.checksum);
    }
    const Stored variants = StoreVariants(elements);
    EXPECT_EQ(InSlices(Encoding::kVariants, elements.size(), false, variants.bytes, &random),
              variants.checksum);
  }
}

// Every flipped bit, every length but the right one: malformed, or another checksum.
TEST(StreamingElements, DetectsCorruption) {
  std::mt19937 random(2);
  const std::vector<std::string> elements = {"one", "", std::string(200, 'x')};
  for (const Encoding encoding : {Encoding::kStrings, Encoding::kVariants}) {
    const Stored stored =
        encoding == Encoding::kStrings ? StoreStrings(elements, false) : StoreVariants(elements);
    const auto differs = [&](const std::string& bytes) {
      return InSlices(encoding, elements.size(), false, bytes, &random) != stored.checksum;
    };
    ASSERT_FALSE(differs(stored.bytes));
    for (size_t bit = 0; bit < 8 * stored.bytes.size(); ++bit) {
      std::string bytes = stored.bytes;
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
      EXPECT_TRUE(differs(bytes)) << bit;
    }
    for (size_t size = 0; size < stored.bytes.size(); ++size) {
      EXPECT_TRUE(differs(stored.bytes.substr(0, size))) << size;
    }
    EXPECT_TRUE(differs(stored.bytes + '\0'));
  }
}

// The lengths do not have their checksum, although the elements have theirs.
TEST(StreamingElements, ComparesTheChecksumOfTheLengths) {
  std::mt19937 random(3);
  const std::vector<std::string> elements = {"one", "", "three"};
  const Stored good = StoreStrings(elements, false);
  const size_t at = elements.size();  // of the checksum, because each length takes one byte
  std::string bytes = good.bytes;
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  EXPECT_EQ(InSlices(Encoding::kStrings, elements.size(), false, bytes, &random), std::nullopt);
  const DecodedElements decoded =
      DecodeElements(AsBytes(bytes), Encoding::kStrings, elements.size(), false, true);
  EXPECT_EQ(decoded.error, ElementsError::kLengthsChecksum);
}

TEST(DecodeElements, RefusesWhatNoWriterEncodes) {
  const Stored good = StoreStrings({"one"}, false);
  const auto error_of = [](const std::string& bytes) {
    return DecodeElements(AsBytes(bytes), Encoding::kStrings, 1, false, false).error;
  };
  EXPECT_EQ(error_of(good.bytes), ElementsError::kNone);
  EXPECT_EQ(error_of(good.bytes + 'x'), ElementsError::kTrailingBytes);
  // A length with a redundant byte, and its checksum, which does not depend on that.
  EXPECT_EQ(error_of(std::string("\x83\x00", 2) + good.bytes.substr(1)), ElementsError::kLength);
  StreamingElements streamed(Encoding::kStrings, 1, false);
  streamed.Extend(AsBytes(std::string("\x83\x00", 2) + good.bytes.substr(1)));
  EXPECT_EQ(streamed.Value(), std::nullopt);
}

TEST(StreamingElements, RefusesLengthsThatNoWriterEncodes) {
  const auto value = [](const std::string& bytes, uint64_t count) {
    StreamingElements checksum(Encoding::kStrings, count, false);
    checksum.Extend(AsBytes(bytes));
    return checksum.Value();
  };
  EXPECT_FALSE(value(std::string("\x80\x00", 2), 1));       // 0 in two bytes
  EXPECT_FALSE(value(std::string(9, '\x80') + '\x02', 1));  // more than 64 bits
  EXPECT_FALSE(value(std::string(11, '\x80'), 1));
  const std::string huge = std::string(9, '\xff') + '\x01';  // 2^64 - 1, twice: the sum overflows
  EXPECT_FALSE(value(huge + huge, 2));
}

}  // namespace
}  // namespace tensorbundle
