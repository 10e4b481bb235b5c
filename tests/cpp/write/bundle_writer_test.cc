// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/bundle_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * i / 7 + size);
  return bytes;
}

SliceInfo InfoOf(const std::string& name, size_t size) {
  return {name, DataType::kUint8, {static_cast<int64_t>(size)}, {}};
}

// Writes a tensor, in parts of at most `part` bytes.
Placement Add(BundleWriter* writer, const SliceInfo& info, const std::string& bytes,
              size_t part = SIZE_MAX) {
  writer->Reserve(info);
  const Placement place = writer->Allocate(bytes.size());
  uint32_t checksum = 0;
  for (size_t at = 0; at < bytes.size(); at += part) {
    const ByteSpan some = AsBytes(bytes).subspan(at, std::min(part, bytes.size() - at));
    checksum = crc32c::Combine(checksum, writer->Write(place, at, some), some.size());
  }
  writer->Record(info, place, crc32c::Mask(checksum));
  return place;
}

TEST(BundleWriter, WritesWhatReadersExpect) {
  const std::vector<size_t> sizes = {1,      0,       63,      65'535,    65'536, 3,
                                     70'000, 600'001, 999'999, 1'000'000, 100,    1'500'000};
  for (const size_t part : {SIZE_MAX, size_t{50'000}, size_t{300'000}}) {
    for (const uint64_t alignment : {1, 64, 4096}) {
      const TempDir dir;
      BundleWriter writer(dir / "c", {.alignment = alignment, .threads = 2});
      for (const size_t size : sizes) {
        Add(&writer, InfoOf("t" + std::to_string(size), size), Pattern(size), part);
      }
      writer.Publish();
      const std::string data = Contents(DataFilePath(dir / "c", 0, 1));
      const Catalog catalog = ReadBundleIndex(dir / "c").catalog;
      ASSERT_EQ(catalog.tensors.size(), sizes.size());
      std::string rest = data;  // without the slices: padding
      for (const Tensor& tensor : catalog.tensors) {
        const StoredSlice& slice = catalog.Slices(tensor)[0];
        const std::string expected = Pattern(tensor.num_elements);
        EXPECT_EQ(data.substr(slice.offset, slice.size), expected) << tensor.name;
        EXPECT_EQ(slice.masked_checksum,
                  crc32c::Mask(crc32c::Value(expected.data(), expected.size())));
        if (slice.size == 0) continue;
        const uint64_t unit =
            slice.size >= 1'000'000 ? alignment : std::min<uint64_t>(alignment, 64);
        EXPECT_EQ(slice.offset % unit, 0U) << tensor.name;
        rest.replace(slice.offset, slice.size, slice.size, '\0');
      }
      EXPECT_EQ(rest.find_first_not_of('\0'), std::string::npos);
    }
  }
}

TEST(BundleWriter, SmallWritesAreBufferedUpToALimit) {
  const TempDir dir;
  BundleWriter writer(dir / "c", {});
  writer.CreateDataFile(0);
  for (int i = 0; i < 40; ++i) {
    Add(&writer, InfoOf("t" + std::to_string(i), 60'000), Pattern(60'000));
  }
  uint64_t written = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "")) {
    written += entry.file_size();
  }
  EXPECT_GE(written, uint64_t{1} << 20);  // of 2.4 MB
}

TEST(BundleWriter, SlicesGoToTheSmallestShard) {
  const TempDir dir;
  BundleWriter writer(dir / "c", {.num_shards = 3});
  std::vector<int32_t> shards;
  for (const size_t size : {1000, 10, 20, 1, 500, 100}) {
    shards.push_back(Add(&writer, InfoOf("t" + std::to_string(size), size), Pattern(size)).shard);
  }
  EXPECT_EQ(shards, (std::vector<int32_t>{0, 1, 2, 1, 2, 1}));
}

TEST(BundleWriter, BytesStayInsideTheirSlice) {
  const TempDir dir;
  BundleWriter writer(dir / "c", {});
  const Placement place = writer.Allocate(10);
  EXPECT_NO_THROW(writer.Write(place, 4, AsBytes("123456")));
  EXPECT_THROW(writer.Write(place, 5, AsBytes("123456")), std::invalid_argument);
  EXPECT_THROW(writer.Write(place, 11, {}), std::invalid_argument);
  EXPECT_THROW(writer.Write(place, UINT64_MAX, AsBytes("1")), std::invalid_argument);
}

TEST(BundleWriter, FilesHaveALimit) {
  const TempDir dir;
  BundleWriter writer(dir / "c", {});
  writer.Allocate(kMaxFileSize - 100);
  writer.Allocate(30);
  try {
    writer.Allocate(100);
    FAIL();
  } catch (const IOFailure& error) {
    EXPECT_EQ(error.error_number(), EFBIG);
  }
}

TEST(BundleWriter, ReservedTensorsMustBeRecorded) {
  const TempDir dir;
  for (const bool is_sliced : {false, true}) {
    BundleWriter writer(dir / "c", {});
    Add(&writer, InfoOf("a", 1), "a");
    SliceInfo info = InfoOf("b", 2);
    if (is_sliced) info.box = Box{{0, 1}};
    writer.Reserve(info);
    EXPECT_THROW(writer.Publish(), std::invalid_argument);
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir / ""));
}

TEST(BundleWriter, NamesAndSlicesAreUsedOnce) {
  const TempDir dir;
  BundleWriter writer(dir / "c", {});
  const auto slice = [](int64_t start, DataType dtype = DataType::kUint8, int64_t rows = 4) {
    return SliceInfo{"s", dtype, {rows}, Box{{start, 2}}};
  };
  Add(&writer, InfoOf("t", 1), "t");
  Add(&writer, slice(0), "ab");
  EXPECT_THROW(writer.Reserve(InfoOf("t", 1)), std::invalid_argument);
  EXPECT_THROW(writer.Reserve(InfoOf("s", 4)), std::invalid_argument);
  EXPECT_THROW(writer.Reserve({"t", DataType::kUint8, {1}, Box{{0, 1}}}), std::invalid_argument);
  EXPECT_THROW(writer.Reserve(InfoOf("", 1)), std::invalid_argument);
  EXPECT_THROW(writer.Reserve(slice(2, DataType::kInt8)), std::invalid_argument);
  EXPECT_THROW(writer.Reserve(slice(2, DataType::kUint8, 5)), std::invalid_argument);
  EXPECT_THROW(Add(&writer, slice(0), "xy"), std::invalid_argument);
  Add(&writer, slice(2), "cd");
  writer.Publish();
  const Catalog catalog = ReadBundleIndex(dir / "c").catalog;
  EXPECT_EQ(catalog.tensors[catalog.Find("s")].num_slices, 2U);
}

// ---- The files of the prefix.

void Save(const std::string& prefix, const std::string& bytes, bool overwrite = false) {
  BundleWriter writer(prefix, {.overwrite = overwrite});
  Add(&writer, InfoOf("t", bytes.size()), bytes);
  writer.Publish();
}

// Returns the bytes of the tensor "t".
std::string Load(const std::string& prefix) {
  const Catalog catalog = ReadBundleIndex(prefix).catalog;
  const StoredSlice& slice = catalog.Slices(catalog.tensors[0])[0];
  return Contents(catalog.files[slice.file]).substr(slice.offset, slice.size);
}

int ErrnoOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const IOFailure& error) {
    return error.error_number();
  }
  return 0;
}

TEST(CheckpointFiles, NothingIsReplacedWithoutBeingAsked) {
  const TempDir dir;
  Save(dir / "c", "old");
  EXPECT_EQ(ErrnoOf([&] { Save(dir / "c", "new"); }), EEXIST);
  EXPECT_EQ(Load(dir / "c"), "old");
  Save(dir / "c", "new", true);
  EXPECT_EQ(Load(dir / "c"), "new");
  // The data files of a checkpoint whose index is elsewhere.
  std::filesystem::remove(dir / "c.index");
  EXPECT_EQ(ErrnoOf([&] { Save(dir / "c", "newer"); }), EEXIST);
  EXPECT_EQ(Contents(DataFilePath(dir / "c", 0, 1)), "new");
}

TEST(CheckpointFiles, ReplacementHasTheUsualNamesAndNoOther) {
  const TempDir dir;
  for (const char* bytes : {"one", "two", "three"}) Save(dir / "c", bytes, true);
  EXPECT_EQ(Load(dir / "c"), "three");
  EXPECT_TRUE(std::filesystem::exists(DataFilePath(dir / "c", 0, 1)));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / ""), {}), 2);
}

// A reader has the old index open while the new checkpoint appears.
TEST(CheckpointFiles, OldDataStaysUntilTheNewIndexIsThere) {
  const TempDir dir;
  Save(dir / "c", "old");
  const auto old = File::Open(DataFilePath(dir / "c", 0, 1));
  Save(dir / "c", "new", true);
  std::vector<uint8_t> bytes(3);
  old->ReadAt(0, bytes);
  EXPECT_EQ(AsText(bytes), "old");
}

TEST(CheckpointFiles, LivingWritersKeepTheirFiles) {
  const TempDir dir;
  BundleWriter first(dir / "c", {.overwrite = true});
  Add(&first, InfoOf("t", 5), "first");
  Save(dir / "c", "second", true);
  EXPECT_EQ(Load(dir / "c"), "second");
  first.Publish();
  EXPECT_EQ(Load(dir / "c"), "first");
}

TEST(CheckpointFiles, LeftoversOfDeadWritersAreRemoved) {
  const TempDir dir;
  Save(dir / "c", "old");
  const char* const own[] = {"c.data-00000-of-00002.tempstate5-tb", "c.index.tempstate5-tb"};
  const char* const others[] = {"d.index.tempstate5-tb", "c.index.tempstate5", "cc.index",
                                "c.data-00000-of-00001-copy"};
  for (const char* name : own) dir.Write(name, "x");
  for (const char* name : others) dir.Write(name, "x");
  {
    const BundleWriter writer(dir / "c", {.overwrite = true});
    for (const char* name : own) EXPECT_FALSE(std::filesystem::exists(dir / name)) << name;
  }
  for (const char* name : others) EXPECT_TRUE(std::filesystem::exists(dir / name)) << name;
  EXPECT_EQ(Load(dir / "c"), "old");  // the index says that its data is published
}

}  // namespace
}  // namespace tensorbundle
