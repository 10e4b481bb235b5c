// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_strings.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::AppendFixed32;
using testing::AppendVarint;
using testing::BundleBuilder;
using testing::Record;
using testing::TempDir;

using Texts = std::vector<std::string>;

// The stored form of some elements, and the checksum that their record has.
struct Stored {
  std::string bytes;
  uint32_t crc = 0;
};

void AppendChecksum(bool big_endian, Stored* stored) {
  const uint32_t masked = crc32c::Mask(stored->crc);
  std::string bytes;
  AppendFixed32(big_endian ? __builtin_bswap32(masked) : masked, &bytes);
  stored->crc = crc32c::Extend(stored->crc, bytes.data(), bytes.size());
  stored->bytes += bytes;
}

Stored StoreStrings(const Texts& texts, bool big_endian = false) {
  Stored stored;
  for (const std::string& text : texts) {
    AppendVarint(text.size(), &stored.bytes);
    const auto size = static_cast<uint32_t>(text.size());
    const uint32_t ordered = big_endian ? __builtin_bswap32(size) : size;
    stored.crc = crc32c::Extend(stored.crc, &ordered, sizeof(ordered));
  }
  AppendChecksum(big_endian, &stored);
  for (const std::string& text : texts) {
    stored.bytes += text;
    stored.crc = crc32c::Extend(stored.crc, text.data(), text.size());
  }
  return stored;
}

Stored StoreVariants(const Texts& texts) {
  Stored stored;
  for (const std::string& text : texts) {
    AppendVarint(text.size(), &stored.bytes);
    stored.bytes += text;
    const uint64_t size = text.size();
    stored.crc = crc32c::Extend(stored.crc, &size, sizeof(size));
    stored.crc = crc32c::Extend(stored.crc, text.data(), text.size());
    AppendChecksum(false, &stored);
  }
  return stored;
}

class StringsTest : public ::testing::Test {
 protected:
  // Reads bytes as the slice of a record of `count` elements.
  Texts Read(DataType dtype, int64_t count, const Stored& stored, bool verify = true,
             bool big_endian = false) {
    BundleBuilder builder(1, big_endian);
    builder.data() = "odd";
    Record record = builder.Store(dtype, {count}, stored.bytes);
    record.crc = stored.crc;
    builder.Put("s", record.Message()).Write(dir_ / "p");
    const auto checkpoint = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
    const Tensor& tensor = checkpoint->catalog().tensors[0];
    const StringElements moved = [&] {
      return ReadStrings(*checkpoint, tensor, checkpoint->catalog().slices[0], verify);
    }();
    EXPECT_EQ(checkpoint->IsVerified(checkpoint->catalog().slices[0]), verify);
    Texts texts;
    for (size_t i = 0; i < moved.size(); ++i) texts.emplace_back(moved[i]);
    return texts;
  }

  // Expects an error, with and without comparing checksums.
  void ExpectError(DataType dtype, int64_t count, const Stored& stored, const std::string& why) {
    for (const bool verify : {true, false}) {
      try {
        Read(dtype, count, stored, verify);
        ADD_FAILURE() << "no error: " << why;
      } catch (const CorruptionError& error) {
        if (verify) continue;  // a checksum may differ first
        EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
      }
    }
  }

  const TempDir dir_;
};

TEST_F(StringsTest, TestDataMatchTensorFlow) {
  const Stored hello = StoreStrings({"hello"});
  EXPECT_EQ(hello.bytes, "\x05\xd9\xc6\x9c\x43hello");
  EXPECT_EQ(crc32c::Mask(hello.crc), 700506348U);
  EXPECT_EQ(StoreStrings({}).bytes, "\xd8\xea\x82\xa2");
}

TEST_F(StringsTest, RoundTrip) {
  for (const Texts& texts :
       {Texts{}, Texts{""}, Texts{"", "", ""}, Texts{"hello", "", std::string("\0\xff", 2)},
        Texts(1000, "x"), Texts{std::string(100'000, 'y')}}) {
    const auto count = static_cast<int64_t>(texts.size());
    for (const bool verify : {true, false}) {
      EXPECT_EQ(Read(DataType::kString, count, StoreStrings(texts), verify), texts);
      EXPECT_EQ(Read(DataType::kString, count, StoreStrings(texts, true), verify, true), texts);
      EXPECT_EQ(Read(DataType::kVariant, count, StoreVariants(texts), verify), texts);
    }
  }
}

TEST_F(StringsTest, FindsEveryFlippedBit) {
  const Texts texts = {"hello", "", "x"};
  const std::pair<DataType, Stored> both[] = {{DataType::kString, StoreStrings(texts)},
                                              {DataType::kVariant, StoreVariants(texts)}};
  for (const auto& [dtype, good] : both) {
    for (size_t bit = 0; bit < good.bytes.size() * 8; ++bit) {
      Stored bad = good;
      bad.bytes[bit / 8] = static_cast<char>(bad.bytes[bit / 8] ^ (1 << bit % 8));
      EXPECT_THROW(Read(dtype, 3, bad), CorruptionError) << bit;
      try {
        Read(dtype, 3, bad, false);  // may succeed: no checksum is compared
      } catch (const CorruptionError&) {
      }
    }
  }
}

TEST_F(StringsTest, RejectsEveryWrongSize) {
  const Texts texts = {"hello", "", "x"};
  const Stored strings = StoreStrings(texts);
  for (size_t size = 7; size < strings.bytes.size(); ++size) {
    ExpectError(DataType::kString, 3, {strings.bytes.substr(0, size), strings.crc}, "bytes");
  }
  ExpectError(DataType::kString, 3, {strings.bytes + '\0', strings.crc}, "1 bytes follow");
  const Stored variants = StoreVariants(texts);
  for (size_t size = 15; size < variants.bytes.size(); ++size) {
    ExpectError(DataType::kVariant, 3, {variants.bytes.substr(0, size), variants.crc}, "");
  }
  ExpectError(DataType::kVariant, 3, {variants.bytes + '\0', variants.crc}, "1 bytes follow");
}

TEST_F(StringsTest, RejectsImpossibleLengths) {
  for (const uint64_t length : {uint64_t{7}, uint64_t{UINT32_MAX}, uint64_t{1} << 32,
                                uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 3}) {
    std::string bytes;
    AppendVarint(length, &bytes);
    bytes += std::string(4, '\0') + "abcdef";
    ExpectError(DataType::kString, 1, {bytes, 0}, "an element claims");
  }
  std::string sum;  // two lengths whose sum wraps to 4
  AppendVarint(UINT64_MAX, &sum);
  AppendVarint(5, &sum);
  ExpectError(DataType::kString, 2, {sum + std::string(8, '\0'), 0}, "an element claims");
}

TEST_F(StringsTest, RejectsPaddedLengths) {
  ExpectError(DataType::kString, 1, {std::string("\x81\x00", 2) + std::string(4, '\0') + "a", 0},
              "malformed");
  ExpectError(DataType::kVariant, 1, {std::string("\x81\x00", 2) + "a" + std::string(4, '\0'), 0},
              "malformed");
  ExpectError(DataType::kString, 1, {std::string(11, '\xff') + std::string(8, '\0'), 0},
              "malformed");
}

TEST_F(StringsTest, ReadsEachSlice) {
  BundleBuilder builder;
  const std::vector<Box> slices = {{{0, 2}}, {{2, 1}}};
  const Stored first = StoreStrings({"a", "bc"});
  const Stored second = StoreStrings({"def"});
  Record one = builder.Store(DataType::kString, {2}, first.bytes);
  Record two = builder.Store(DataType::kString, {1}, second.bytes);
  one.crc = first.crc;
  two.crc = second.crc;
  builder.Put(SliceKey("s", slices[0]), one.Message()).Put(SliceKey("s", slices[1]), two.Message());
  builder.Put("s", Record{.dtype = DataType::kString, .dims = {3}, .slices = slices}.Message())
      .Write(dir_ / "p");
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "p", IoMode::kPread);
  const Catalog& catalog = checkpoint->catalog();
  EXPECT_EQ(ReadStrings(*checkpoint, catalog.tensors[0], catalog.slices[0], true)[1], "bc");
  EXPECT_EQ(ReadStrings(*checkpoint, catalog.tensors[0], catalog.slices[1], true)[0], "def");
}

TEST_F(StringsTest, RejectsAShortFile) {
  BundleBuilder builder;
  const Stored stored = StoreStrings({"hello"});
  builder.Put("s", builder.Store(DataType::kString, {1}, stored.bytes).Message()).Write(dir_ / "p");
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 1), stored.bytes.size() - 1);
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  EXPECT_THROW(ReadStrings(*checkpoint, checkpoint->catalog().tensors[0],
                           checkpoint->catalog().slices[0], true),
               CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
