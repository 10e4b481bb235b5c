// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/bundle_writer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <algorithm>
#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/bundle/slice_key.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

std::string MessageOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "(nothing)";
}

class BundleWriterTest : public ::testing::Test {
 protected:
  static SliceInfo Info(const std::string& name, int64_t size, std::optional<Box> box = {}) {
    return {name, DataType::kUint8, {size}, std::move(box)};
  }

  // Reserves, writes and records the whole of a tensor or a slice.
  static Placement Put(BundleWriter* writer, const SliceInfo& info, const std::string& bytes) {
    writer->Reserve(info);
    const Placement place = writer->Allocate(bytes.size());
    writer->Record(info, place, crc32c::Mask(writer->Write(place, 0, AsBytes(bytes))));
    return place;
  }

  // Returns the stored bytes of a tensor, slice by slice. Compares the checksums.
  std::string Load(const std::string& name) const {
    const auto checkpoint = Checkpoint::OpenBundle(dir_ / "c", IoMode::kPread);
    const Catalog& catalog = checkpoint->catalog();
    std::string all;
    for (const StoredSlice& slice : catalog.Slices(catalog.tensors.at(catalog.Find(name)))) {
      std::string bytes(slice.size, ' ');
      checkpoint->files()
          .Get(slice.file)
          .ReadAt(slice.offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
      EXPECT_EQ(slice.masked_checksum, crc32c::Mask(crc32c::Value(bytes.data(), bytes.size())));
      all += bytes;
    }
    return all;
  }

  const TempDir dir_;
};

TEST_F(BundleWriterTest, RejectsInvalidOptions) {
  const auto message = [&](const BundleWriterOptions& options) {
    return MessageOf([&] { BundleWriter(dir_ / "c", options); });
  };
  for (const uint64_t alignment : {uint64_t{0}, uint64_t{24}, kMaxAlignment * 2}) {
    EXPECT_EQ(message({.alignment = alignment}),
              "the alignment must be a power of two from 1 to 1073741824, not " +
                  std::to_string(alignment));
  }
  for (const int32_t shards : {0, -1, 100'001}) {
    EXPECT_TRUE(
        message({.num_shards = shards}).starts_with("the number of shards must be from 1 to "))
        << shards;
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / ""));
}

TEST_F(BundleWriterTest, RejectsNamesThatAreTaken) {
  BundleWriter writer(dir_ / "c", {});
  EXPECT_EQ(MessageOf([&] { writer.Reserve(Info("", 1)); }), "a tensor must have a name");
  writer.Reserve(Info("whole", 4));
  writer.Reserve(Info("sliced", 4, Box{{0, 2}}));
  writer.Reserve(Info("sliced", 4, Box{{2, 2}}));
  const std::string taken = " was added before: a name can be used once";
  EXPECT_EQ(MessageOf([&] { writer.Reserve(Info("whole", 4)); }), "the tensor 'whole'" + taken);
  EXPECT_EQ(MessageOf([&] { writer.Reserve(Info("whole", 4, Box{{0, 2}})); }),
            "the tensor 'whole'" + taken);
  EXPECT_EQ(MessageOf([&] { writer.Reserve(Info("sliced", 4)); }), "the tensor 'sliced'" + taken);
  const std::string differs = "the tensor 'sliced' has another type or shape in an earlier slice";
  EXPECT_EQ(MessageOf([&] { writer.Reserve(Info("sliced", 5, Box{{0, 2}})); }), differs);
  EXPECT_EQ(MessageOf([&] { writer.Reserve({"sliced", DataType::kInt8, {4}, Box{{0, 2}}}); }),
            differs);
}

TEST_F(BundleWriterTest, RejectsIncompleteTensorsAndSlicesThatAreRecordedTwice) {
  BundleWriter writer(dir_ / "c", {});
  const SliceInfo half = Info("t", 4, Box{{0, 2}});
  const Placement place = Put(&writer, half, "ab");
  EXPECT_EQ(MessageOf([&] { writer.Record(half, place, 0); }),
            "the tensor 't' has the slice [0:2] already");
  writer.Reserve(Info("later", 4));
  EXPECT_EQ(MessageOf([&] { writer.Publish(); }), "the tensor 'later' is not complete");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "c.index"));
}

TEST_F(BundleWriterTest, RejectsANameThatIsTheKeyOfASlice) {
  BundleWriter writer(dir_ / "c", {});
  const Box box{{0, 2}};
  Put(&writer, Info("t", 2, box), "ab");
  Put(&writer, Info(SliceKey("t", box), 1), "x");
  EXPECT_TRUE(
      MessageOf([&] { writer.Publish(); }).ends_with("is the key of another tensor's slice"));
}

TEST_F(BundleWriterTest, RejectsBytesOutsideTheirSlice) {
  BundleWriter writer(dir_ / "c", {});
  const Placement place = writer.Allocate(4);
  EXPECT_EQ(MessageOf([&] { writer.Write(place, 0, AsBytes("abcde")); }),
            "the bytes exceed their slice");
  EXPECT_EQ(MessageOf([&] { writer.Write(place, 5, {}); }), "the bytes exceed their slice");
  EXPECT_EQ(writer.Write(place, 4, {}), crc32c::Value("", 0));
}

TEST_F(BundleWriterTest, RejectsFilesThatWouldBeTooLarge) {
  BundleWriter writer(dir_ / "c", {.alignment = 1});
  writer.CreateDataFile(0);
  writer.Allocate(kMaxFileSize - 10);
  writer.Allocate(0, 1);
  try {
    writer.Allocate(100);
    FAIL() << "allocated more than a file can hold";
  } catch (const IOFailure& error) {
    EXPECT_EQ(error.error_number(), EFBIG);
    EXPECT_EQ(error.path(), DataFilePath(dir_ / "c", 0, 1));
  }
}

// The smallest shard gets the next slice; slices are aligned in it; records replace each other.
TEST_F(BundleWriterTest, PlacesSlicesInTheSmallestShard) {
  BundleWriter writer(dir_ / "c", {.num_shards = 2});
  EXPECT_EQ(Put(&writer, Info("a", 100), std::string(100, 'a')).shard, 0);
  EXPECT_EQ(Put(&writer, Info("b", 3), "bbb").shard, 1);
  const Placement third = Put(&writer, Info("c", 3), "ccc");
  EXPECT_EQ(third.shard, 1);
  EXPECT_EQ(third.offset, 64u);
  EXPECT_EQ(third.padding, 61u);
  const Placement none = Put(&writer, Info("none", 0), "");
  EXPECT_EQ(none.offset, 67u) << "empty slices are not aligned";
  writer.PutRecord("x", "wrong");
  writer.PutRecord(
      "x", testing::Record{DataType::kUint8, {3}, 1, 0, 3, crc32c::Value("bbb", 3)}.Message());
  writer.PutRecord("", EncodeBundleHeader({.num_shards = 2}));
  writer.FinishDataFile(0);
  writer.FinishDataFile(0);
  writer.Publish();
  BundleWriter empty(dir_ / "d", {});
  empty.FinishDataFile(0);  // nothing was written to it
  empty.Publish();
  EXPECT_FALSE(std::filesystem::exists(DataFilePath(dir_ / "d", 0, 1)));
  EXPECT_EQ(Load("a"), std::string(100, 'a'));
  EXPECT_EQ(Load("b"), "bbb");
  EXPECT_EQ(Load("c"), "ccc");
  EXPECT_EQ(Load("x"), "bbb");
  EXPECT_EQ(Load("none"), "");
}

// Slices that are written in parts, in any order, some buffered and some by all threads.
TEST_F(BundleWriterTest, WritesPartsInAnyOrder) {
  const size_t large = (size_t{65} << 20) + 7;  // also starts the writing to the disk
  std::string bytes(large, '\0');
  for (size_t i = 0; i < large; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 24);
  BundleWriter writer(dir_ / "c", {.threads = 3});
  const SliceInfo first = Info("first", static_cast<int64_t>(large));
  const SliceInfo second = Info("second", 200'000);
  writer.Reserve(first);
  writer.Reserve(second);
  const Placement at_first = writer.Allocate(large);
  const Placement at_second = writer.Allocate(200'000);
  const auto part = [&](size_t begin, size_t size) { return AsBytes(bytes).subspan(begin, size); };
  // The last bytes of the second slice, then the first ones: the buffer cannot continue.
  for (size_t begin = 200'000; begin > 0; begin -= 50'000) {
    writer.Write(at_second, begin - 50'000, part(begin - 50'000, 50'000));
  }
  EXPECT_EQ(writer.Write(at_first, 10, part(10, large - 10)),
            crc32c::Value(bytes.data() + 10, large - 10));
  EXPECT_EQ(writer.Write(at_first, 0, part(0, 10)), crc32c::Value(bytes.data(), 10));
  writer.Record(first, at_first, crc32c::Mask(crc32c::Value(bytes.data(), large)));
  writer.Record(second, at_second, crc32c::Mask(crc32c::Value(bytes.data(), 200'000)));
  writer.Publish();
  EXPECT_EQ(Load("first"), bytes);
  EXPECT_EQ(Load("second"), bytes.substr(0, 200'000));
}

// More small slices than fit the buffer of a shard.
TEST_F(BundleWriterTest, FlushesAFullBuffer) {
  BundleWriter writer(dir_ / "c", {});
  for (int i = 0; i < 40; ++i) {
    Put(&writer, Info("t" + std::to_string(i), 60'000), std::string(60'000, static_cast<char>(i)));
  }
  writer.Publish();
  for (int i = 0; i < 40; ++i) {
    EXPECT_EQ(Load("t" + std::to_string(i)), std::string(60'000, static_cast<char>(i)));
  }
}

TEST_F(BundleWriterTest, CopiesTensorsUnderNewNames) {
  testing::BundleBuilder builder(2);
  builder.Add("whole", DataType::kInt16, {2}, "abcd");
  builder.AddSliced("rows", DataType::kInt8, {4, 1}, "efgh", {{{0, 1}, {0, 1}}, {{1, 3}, {0, 1}}});
  builder.Write(dir_ / "source");
  const auto source = Checkpoint::OpenBundle(dir_ / "source", IoMode::kAuto);
  std::vector<TensorCopy> copies;
  for (const Tensor& tensor : source->catalog().tensors) {
    copies.push_back({source, &tensor, "new/" + std::string(tensor.name)});
  }
  uint64_t progress = 0;
  BundleWriter writer(dir_ / "c", {});
  CopyTensors(&writer, copies, [&](uint64_t bytes) { progress += bytes; });
  writer.Publish();
  EXPECT_EQ(progress, 8u);
  EXPECT_EQ(Load("new/whole"), "abcd");
  EXPECT_EQ(Load("new/rows"), "efgh");
  const auto copy = Checkpoint::OpenBundle(dir_ / "c", IoMode::kAuto);
  const Tensor& rows = copy->catalog().tensors.at(0);
  EXPECT_EQ(copy->catalog().BoxOf(rows, copy->catalog().Slices(rows)[1]), (Box{{1, 3}, {0, 1}}));
}

// What a new writer finds in its directory.
class DestinationTest : public BundleWriterTest {
 protected:
  // Returns the error number of a new writer, or 0.
  int ErrorOf(const std::string& prefix, bool overwrite = false) const {
    try {
      BundleWriter(prefix, {.overwrite = overwrite});
    } catch (const IOFailure& error) {
      EXPECT_NE(error.path().find(prefix.substr(0, prefix.rfind('/'))), std::string::npos);
      return error.error_number();
    }
    return 0;
  }

  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "")) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  void Save(const std::string& prefix, const BundleWriterOptions& options = {}) const {
    BundleWriter writer(prefix, options);
    Put(&writer, Info("t", 3), "new");
    writer.Publish();
  }
};

TEST_F(DestinationTest, ReplacesNothingUnlessAsked) {
  EXPECT_EQ(ErrorOf(dir_ / "c"), 0);
  dir_.Write("v1", "a table");
  EXPECT_EQ(ErrorOf(dir_ / "v1"), EEXIST);
  EXPECT_EQ(ErrorOf(dir_ / "v1", true), EEXIST);
  std::filesystem::create_directory(dir_ / "folder");
  EXPECT_EQ(ErrorOf(dir_ / "folder"), 0) << "a checkpoint may have the name of a directory";
  std::filesystem::create_directory(dir_ / "d.index");
  EXPECT_EQ(ErrorOf(dir_ / "d", true), EEXIST);
  dir_.Write("c.index", "old");
  EXPECT_EQ(ErrorOf(dir_ / "c"), EEXIST);
  EXPECT_EQ(ErrorOf(dir_ / "c", true), 0);
  dir_.Write("e.data-00000-of-00001", "of another writer");
  EXPECT_EQ(ErrorOf(dir_ / "e"), EEXIST);
  EXPECT_EQ(ErrorOf(dir_ / "e", true), 0);
  dir_.Write("f.data-00000-of-00002", "of another number of shards");
  EXPECT_EQ(ErrorOf(dir_ / "f"), 0);
}

TEST_F(DestinationTest, ReportsErrorsOfTheSystem) {
  dir_.Write("file", "");
  EXPECT_EQ(ErrorOf(dir_ / "file/c"), ENOTDIR);
  EXPECT_EQ(ErrorOf(dir_ / "no/such/c"), ENOENT);
  std::filesystem::create_symlink("loop", dir_ / "loop");
  EXPECT_EQ(ErrorOf(dir_ / "loop/c"), ELOOP);
  EXPECT_EQ(ErrorOf(dir_ / std::string(300, 'n')), ENAMETOOLONG);
}

TEST_F(DestinationTest, IsInTheWorkingDirectory) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(dir_ / "");
  Save("c");
  std::filesystem::current_path(before);
  EXPECT_EQ(Load("t"), "new");
}

TEST_F(DestinationTest, KeepsFilesThatAreNotItsOwn) {
  const std::set<std::string> others = {
      "c.indexes",
      "c.index.tempstate12x-tb",
      "c.index.tempstate12",
      "c.data-0000-of-00001",
      "c.data-00000-of-0001",
      "c.data-00000+of-00001",
      "c.data-00000:of-00001",
      "c.data",
      "cc.index.tempstate12-tb",
      "c.data-00000-of-00003",
  };
  for (const std::string& name : others) dir_.Write(name, "kept");
  Save(dir_ / "c");
  std::set<std::string> all = others;
  all.insert({"c.index", "c.data-00000-of-00001"});
  EXPECT_EQ(Names(), all);
}

// Data files first, so that a writer that dies while it cleans up leaves what the next one finds.
TEST_F(DestinationTest, RemovesWhatDeadWritersLeft) {
  dir_.Write("c.index.tempstate7-tb", "");
  dir_.Write("c.data-00000-of-00001.tempstate7-tb", "abc");
  dir_.Write("c.data-00001-of-00002.tempstate8-tb", "without an index");
  Save(dir_ / "c");
  EXPECT_EQ(Names(), (std::set<std::string>{"c.index", "c.data-00000-of-00001"}));
}

// One that died while it published a first checkpoint has named its data files.
TEST_F(DestinationTest, RemovesDataFilesOfAWriterThatDiedWhilePublishing) {
  dir_.Write("c.index.tempstate7-tb", "the whole index");
  dir_.Write("c.data-00000-of-00002", "abc");
  dir_.Write("c.data-00001-of-00002.tempstate7-tb", "def");
  Save(dir_ / "c", {.num_shards = 2});
  EXPECT_EQ(Names(), (std::set<std::string>{"c.index", "c.data-00000-of-00002"}));
  EXPECT_EQ(Load("t"), "new");
}

// A leftover that cannot be opened may belong to a writer that lives.
TEST_F(DestinationTest, KeepsLeftoversThatCannotBeLocked) {
  std::filesystem::create_symlink("elsewhere", dir_ / "c.index.tempstate7-tb");
  dir_.Write("c.index.tempstate8-tb", "died while publishing");
  dir_.Write("c.data-00000-of-00002", "named by one of them");
  Save(dir_ / "c");
  EXPECT_EQ(Names(), (std::set<std::string>{"c.index", "c.index.tempstate7-tb",
                                            "c.data-00000-of-00001", "c.data-00000-of-00002"}));
}

TEST_F(DestinationTest, KeepsTheFilesOfALivingWriter) {
  BundleWriter first(dir_ / "c", {});
  Put(&first, Info("t", 3), "old");
  const std::set<std::string> before = Names();
  ASSERT_EQ(before.size(), 2u);
  dir_.Write("c.index.tempstate7-tb", "died while publishing");
  {
    const BundleWriter second(dir_ / "c", {});
    for (const std::string& name : before) EXPECT_EQ(Names().count(name), 1u) << name;
    EXPECT_EQ(Names().count("c.index.tempstate7-tb"), 0u);
  }
  EXPECT_EQ(Names(), before);
  first.Publish();
  EXPECT_EQ(Load("t"), "old");
}

// The new data files get other names, so that the old checkpoint is whole until the index is
// replaced, and then their usual ones.
TEST_F(DestinationTest, ReplacesACheckpointOfAnyNumberOfShards) {
  for (const int32_t shards : {1, 1, 3, 2, 3}) {
    BundleWriter writer(dir_ / "c", {.num_shards = shards, .overwrite = true});
    for (int32_t shard = 0; shard < shards; ++shard) {
      Put(&writer, Info("t" + std::to_string(shard), 3), "ab" + std::to_string(shards));
    }
    writer.Publish();
    std::set<std::string> expected{"c.index"};
    for (int32_t shard = 0; shard < shards; ++shard) {
      expected.insert(std::filesystem::path(DataFilePath("c", shard, shards)).string());
      EXPECT_EQ(Load("t" + std::to_string(shard)), "ab" + std::to_string(shards));
    }
    EXPECT_EQ(Names(), expected);
  }
  // A shard without slices has no file, also among files that are replaced.
  for (int i = 0; i < 2; ++i) {
    BundleWriter writer(dir_ / "c", {.num_shards = 3, .overwrite = true});
    Put(&writer, Info("t", 3), "one");
    writer.Publish();
    EXPECT_EQ(Names(), (std::set<std::string>{"c.index", "c.data-00000-of-00003"}));
    EXPECT_EQ(Load("t"), "one");
  }
}

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
