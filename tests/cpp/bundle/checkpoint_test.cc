// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/checkpoint.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::Record;
using testing::TempDir;

class CheckpointTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Checkpoint> Open() const {
    return Checkpoint::OpenBundle(dir_ / "p", IoMode::kPread);
  }
  std::string DataPath(int32_t shard = 0, int32_t num_shards = 1) const {
    return DataFilePath(dir_ / "p", shard, num_shards);
  }

  // Writes a new data file, which is newer than the index by the clock of the file system.
  void ReplaceData(const std::string& bytes) const {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    std::filesystem::remove(DataPath());
    std::ofstream(DataPath(), std::ios::binary) << bytes;
  }

  // Returns the message of the exception that CheckSlice() throws for the first slice of a tensor.
  template <typename Exception>
  static std::string MessageOf(const Checkpoint& checkpoint, const char* name, Compared compared) {
    const Tensor& tensor = checkpoint.catalog().tensors.at(checkpoint.catalog().Find(name));
    try {
      checkpoint.CheckSlice(tensor, checkpoint.catalog().Slices(tensor)[0], compared);
    } catch (const Exception& error) {
      return error.what();
    }
    return "(nothing)";
  }

  const TempDir dir_;
};

TEST_F(CheckpointTest, DataFilesOfAFinishedSaveAreNotDoubtful) {
  BundleBuilder().Add("t", DataType::kInt8, {4}, "abcd").Write(dir_ / "p");
  const auto checkpoint = Open();
  EXPECT_FALSE(checkpoint->files().IsDoubtful(0));
  EXPECT_EQ(checkpoint->listing_file(), dir_ / "p.index");
  EXPECT_EQ(checkpoint->mode(), IoMode::kPread);
}

TEST_F(CheckpointTest, NewerDataFilesAreDoubtful) {
  BundleBuilder().Add("t", DataType::kInt8, {4}, "abcd").Write(dir_ / "p");
  ReplaceData("abcd");
  EXPECT_TRUE(Open()->files().IsDoubtful(0)) << "young, and equal in the sample";
  ReplaceData("abcX");
  EXPECT_TRUE(Open()->files().IsDoubtful(0)) << "another content";
  ReplaceData("ab");
  EXPECT_TRUE(Open()->files().IsDoubtful(0)) << "too short to compare";
}

// A file whose slices are too large to be compared at open is doubtful while it is young.
TEST_F(CheckpointTest, NewerDataFilesWithLargeSlicesOnlyAreDoubtful) {
  const std::string bytes(5'000'000, 'x');
  BundleBuilder().Add("t", DataType::kInt8, {5'000'000}, bytes).Write(dir_ / "p");
  ReplaceData(bytes);
  EXPECT_TRUE(Open()->files().IsDoubtful(0));
}

// As if the save of a new checkpoint ends while the old one is opened.
TEST_F(CheckpointTest, OpensTheNewCheckpointIfTheIndexIsReplacedSoon) {
  BundleBuilder old;
  old.Add("t", DataType::kInt8, {4}, "old.").Write(dir_ / "p");
  BundleBuilder newer;
  newer.Add("t", DataType::kInt8, {4}, "newr").Write(dir_ / "q");
  bool replaced = false;  // at the right time, which depends on the load of the machine
  for (int attempt = 0; attempt < 20 && !replaced; ++attempt) {
    old.Write(dir_ / "p");
    std::ofstream(dir_ / "p.index.new", std::ios::binary) << newer.Index();
    ReplaceData("newr");
    std::thread writer([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(4));
      std::filesystem::rename(dir_ / "p.index.new", dir_ / "p.index");
    });
    const auto checkpoint = Open();
    writer.join();
    const StoredSlice& slice = checkpoint->catalog().slices.at(0);
    replaced = slice.masked_checksum == crc32c::Mask(crc32c::Value("newr", 4));
    if (!replaced) {
      EXPECT_TRUE(checkpoint->files().IsDoubtful(0));
    }
  }
  EXPECT_TRUE(replaced);
}

TEST_F(CheckpointTest, OpenTensorsReportsAReplacedIndex) {
  BundleBuilder builder(2);
  builder.Add("a", DataType::kInt8, {4}, "abcd", 0).Add("b", DataType::kInt8, {4}, "efgh", 1);
  builder.Write(dir_ / "p");
  const auto index = std::make_shared<const BundleIndex>(ReadBundleIndex(dir_ / "p"));
  const std::vector<const Tensor*> tensors{&index->catalog.tensors.at(1)};
  ASSERT_NE(Checkpoint::OpenTensors(index, tensors, IoMode::kAuto), nullptr);
  std::ofstream(dir_ / "p.index", std::ios::binary | std::ios::app) << "more";
  EXPECT_EQ(Checkpoint::OpenTensors(index, tensors, IoMode::kAuto), nullptr);
}

TEST_F(CheckpointTest, NamesTheSliceOfAFileThatCannotBeOpened) {
  BundleBuilder builder(2);
  builder.Add("a", DataType::kInt8, {4}, "abcd", 0).Add("b", DataType::kInt8, {4}, "efgh", 1);
  builder.Write(dir_ / "p");
  std::filesystem::remove(DataPath(0, 2));
  std::filesystem::remove(DataPath(1, 2));
  std::filesystem::create_directory(DataPath(1, 2));
  const auto checkpoint = Open();
  const std::string missing = MessageOf<CheckpointNotFoundError>(*checkpoint, "a", Compared::kYes);
  EXPECT_TRUE(missing.starts_with("tensor 'a': the data file " + DataPath(0, 2))) << missing;
  const std::string directory = MessageOf<IOFailure>(*checkpoint, "b", Compared::kYes);
  EXPECT_TRUE(directory.starts_with("tensor 'b': ")) << directory;
  EXPECT_NE(directory.find("a directory"), std::string::npos) << directory;
}

TEST_F(CheckpointTest, ChecksSlicesOfShortAndForeignFiles) {
  BundleBuilder builder;
  builder.Add("a", DataType::kInt8, {400}, std::string(400, 'a'));
  builder.Add("b", DataType::kInt8, {200}, std::string(200, 'b'));
  builder.Put("none", Record{DataType::kInt8, {0}}.Message());
  builder.Write(dir_ / "p");
  std::filesystem::resize_file(DataPath(), 500);
  // A slice inside the file may be read if its bytes are compared.
  auto checkpoint = Open();
  EXPECT_EQ(MessageOf<Error>(*checkpoint, "a", Compared::kYes), "(nothing)");
  EXPECT_EQ(MessageOf<Error>(*checkpoint, "none", Compared::kNo), "(nothing)");
  EXPECT_NE(MessageOf<CorruptionError>(*checkpoint, "a", Compared::kNo).find("was cut off"),
            std::string::npos);
  EXPECT_NE(MessageOf<TruncatedError>(*checkpoint, "b", Compared::kYes).find("was cut off"),
            std::string::npos);
  // In a file that certainly is something else, none may.
  std::ofstream(DataPath(), std::ios::binary) << "<html>" << std::string(420, ' ');
  checkpoint = Open();
  EXPECT_NE(MessageOf<CorruptionError>(*checkpoint, "a", Compared::kYes).find("HTML"),
            std::string::npos);
}

// The catalog was made without a scan of the file's end: nothing is known about the whole file.
TEST_F(CheckpointTest, ChecksSlicesOfAFileWithoutADiagnosis) {
  Catalog catalog;
  catalog.files = {dir_.Write("f", "abc")};
  catalog.tensors = {Tensor{.name = "t", .num_elements = 4, .num_slices = 1}};
  catalog.slices = {StoredSlice{.offset = 0, .size = 4}};
  const Checkpoint checkpoint(std::move(catalog), 0, IoMode::kAuto, nullptr);
  EXPECT_EQ(checkpoint.listing_file(), dir_ / "f");
  const std::string message = MessageOf<TruncatedError>(checkpoint, "t", Compared::kYes);
  EXPECT_NE(message.find("has 3 bytes, but tensor 't' takes 4 at offset 0"), std::string::npos)
      << message;
  EXPECT_EQ(Checkpoint(Catalog(), 0, IoMode::kAuto, nullptr).listing_file(), "");
}

TEST_F(CheckpointTest, WarnsAboutSharedAndTrailingBytes) {
  BundleBuilder builder(3);
  builder.Add("a", DataType::kInt8, {8}, "abcdefgh", 0);
  builder.Put("b", Record{DataType::kInt8, {2}, 0, 3, 2}.Message());
  builder.Put("c", Record{DataType::kInt8, {2}, 0, 6, 2}.Message());
  builder.AddSliced("d", DataType::kInt8, {4}, "ijkl", {{{0, 2}}, {{2, 2}}});
  builder.data(1) += "trailing";
  builder.Add("e", DataType::kInt8, {2}, "mn", 2);
  builder.Add("none", DataType::kInt8, {0}, "", 0);
  builder.Write(dir_ / "p");
  std::filesystem::remove(DataPath(2, 3));
  const std::string first = DataPath(0, 3);
  EXPECT_EQ(
      StorageWarnings(*Open()),
      (std::vector<std::string>{first + ": tensor 'a' and tensor 'b' share bytes from offset 3 on",
                                first + ": tensor 'a' and tensor 'c' share bytes from offset 6 on",
                                DataPath(1, 3) + ": 8 bytes follow the last tensor"}));
}

TEST_F(CheckpointTest, WarnsTwentyTimesAtMost) {
  BundleBuilder builder;
  builder.data() = "abcd";
  for (char name = 'a'; name <= 'z'; ++name) {
    builder.Put(std::string(1, name), Record{DataType::kInt8, {2}, 0, 1, 2}.Message());
  }
  builder.Write(dir_ / "p");
  EXPECT_EQ(StorageWarnings(*Open()).size(), 20u);
}

constexpr auto kTick = std::chrono::milliseconds(30);  // more than one of the file system's clock

BundleBuilder BuilderOf(const std::string& bytes) {
  BundleBuilder builder;
  builder.Add("t", DataType::kUint8, {static_cast<int64_t>(bytes.size())}, bytes);
  return builder;
}

std::string BundleIndexOf(const std::string& bytes) { return BuilderOf(bytes).Index(); }

void Write(const std::string& prefix, const std::string& bytes) { BuilderOf(bytes).Write(prefix); }

// Replaces the data file of a checkpoint, as a save does before it replaces the index.
void ReplaceData(const TempDir& dir, const std::string& bytes) {
  std::this_thread::sleep_for(kTick);
  std::filesystem::rename(dir.Write("aside", bytes), DataFilePath(dir / "p", 0, 1));
}

TEST(Checkpoint, DataFileThatIsOlderThanTheIndexIsTrusted) {
  const TempDir dir;
  dir.Write("p.data-00000-of-00001", "old");
  std::this_thread::sleep_for(kTick);
  Write(dir / "p", "old");
  std::filesystem::rename(dir / "p.index", dir / "aside");
  std::this_thread::sleep_for(kTick);
  std::filesystem::rename(dir / "aside", dir / "p.index");
  EXPECT_FALSE(Checkpoint::OpenBundle(dir / "p", IoMode::kAuto)->files().IsDoubtful(0));
}

TEST(Checkpoint, DataFileOfANewerSaveIsDoubtful) {
  const TempDir dir;
  Write(dir / "p", "old");
  ReplaceData(dir, "new");
  EXPECT_TRUE(Checkpoint::OpenBundle(dir / "p", IoMode::kAuto)->files().IsDoubtful(0));
}

// The sampled slices may be those that the newer save did not change.
TEST(Checkpoint, YoungDataFileIsDoubtfulEvenIfItMatches) {
  const TempDir dir;
  Write(dir / "p", "old");
  ReplaceData(dir, "old");
  EXPECT_TRUE(Checkpoint::OpenBundle(dir / "p", IoMode::kAuto)->files().IsDoubtful(0));
}

// Then only the checksums tell whether the data is that of the index.
TEST(Checkpoint, DataFileOfTheSameClockTickMustMatch) {
  const TempDir dir;
  for (const bool matches : {true, false}) {
    bool tried = false;
    for (int attempt = 0; attempt < 300 && !tried; ++attempt) {
      Write(dir / "p", "old");
      const std::string index = dir.Write("aside.index", BundleIndexOf("old"));
      std::filesystem::remove(dir / "aside");
      std::filesystem::rename(index, dir / "p.index");
      std::filesystem::rename(dir.Write("aside", matches ? "old" : "new"),
                              DataFilePath(dir / "p", 0, 1));
      const auto checkpoint = Checkpoint::OpenBundle(dir / "p", IoMode::kAuto);
      if (checkpoint->files().AgeOf(0) != DataFiles::Age::kSameTick) continue;
      tried = true;
      EXPECT_EQ(checkpoint->files().IsDoubtful(0), !matches);
    }
    if (!tried) GTEST_SKIP() << "the clock of the file system is too fine";
  }
}

TEST(Checkpoint, SlicesMustBeInsideTheirFile) {
  const TempDir dir;
  BundleBuilder builder;
  builder.Add("a", DataType::kUint8, {4}, "abcd");
  Record record = builder.Store(DataType::kUint8, {4}, "efgh");
  builder.Put("b", record.Message());
  record.offset = 5;  // one byte more than the file has
  builder.Put("c", record.Message());
  builder.Write(dir / "p");
  const auto checkpoint = Checkpoint::OpenBundle(dir / "p", IoMode::kAuto);
  const Catalog& catalog = checkpoint->catalog();
  const auto check = [&](size_t tensor) {
    checkpoint->CheckSlice(catalog.tensors[tensor], catalog.Slices(catalog.tensors[tensor])[0],
                           Compared::kYes);
  };
  EXPECT_NO_THROW(check(0));
  EXPECT_NO_THROW(check(1));
  EXPECT_THROW(check(2), TruncatedError);
}

}  // namespace
}  // namespace tensorbundle
