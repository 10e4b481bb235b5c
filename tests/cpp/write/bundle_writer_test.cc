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

}  // namespace
}  // namespace tensorbundle
