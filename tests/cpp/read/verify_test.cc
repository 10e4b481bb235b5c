// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "random_boxes.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/read/read_box.h"
#include "v1_writer.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::CutOut;
using testing::Random;
using testing::RandomTiling;
using testing::Record;
using testing::TempDir;

constexpr size_t kLarge =
    (size_t{9} << 20) + 5;  // more than a small slice, not a multiple of a chunk

class VerifyTest : public ::testing::Test {
 protected:
  VerifyTest() {
    builder_.Add("a", DataType::kInt8, {1000}, std::string(1000, 'a'));
    builder_.Add("large", DataType::kInt8, {kLarge}, std::string(kLarge, 'l'), 1);
    for (int i = 0; i < 50; ++i) {
      builder_.Add("t" + std::to_string(i), DataType::kInt8, {100}, std::string(100, 't'), i % 2);
    }
    builder_.AddSliced("w", DataType::kInt8, {4}, "abcd", {{{0, 2}}, {{2, 2}}});
  }

  std::vector<Corruption> Verify(int threads, uint64_t* bytes = nullptr) {
    builder_.Write(dir_ / "p");
    if (!removed_file_.empty()) std::filesystem::remove(removed_file_);
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
    std::vector<size_t> all(checkpoint_->catalog().tensors.size());
    std::iota(all.begin(), all.end(), size_t{0});
    std::atomic<uint64_t> done{0};
    VerifyResult result = VerifyTensors(*checkpoint_, all, threads, [&](uint64_t n) { done += n; });
    EXPECT_EQ(result.num_bytes, done);
    if (bytes != nullptr) *bytes = done;
    return std::move(result.corruptions);
  }

  std::string NameOf(const Corruption& corruption) const {
    return std::string(checkpoint_->catalog().tensors[corruption.tensor].name);
  }

  const TempDir dir_;
  BundleBuilder builder_{2};
  std::string removed_file_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_F(VerifyTest, ReportsNothingForAGoodCheckpoint) {
  for (const int threads : {1, 4}) {
    uint64_t bytes = 0;
    EXPECT_TRUE(Verify(threads, &bytes).empty());
    EXPECT_EQ(bytes, 1000 + kLarge + 50 * 100 + 4);
    for (const StoredSlice& slice : checkpoint_->catalog().slices)
      EXPECT_TRUE(checkpoint_->IsVerified(slice));
  }
}

TEST_F(VerifyTest, ReportsInFileOrder) {
  builder_.data(1)[kLarge - 1] = 'x';
  builder_.data(1)[kLarge + 150] = 'x';  // of the second small tensor in that file
  builder_.data(0)[500] = 'x';
  for (const int threads : {1, 4}) {
    const std::vector<Corruption> corruptions = Verify(threads);
    ASSERT_EQ(corruptions.size(), 3U);
    EXPECT_EQ(NameOf(corruptions[0]), "a");
    EXPECT_EQ(NameOf(corruptions[1]), "large");
    EXPECT_EQ(NameOf(corruptions[2]), "t3");
    EXPECT_NE(corruptions[1].message.find("tensor 'large'"), std::string::npos)
        << corruptions[1].message;
    EXPECT_FALSE(checkpoint_->IsVerified(*corruptions[1].slice));
    for (const int i : {0, 1}) {  // the file, and the place in it
      const std::string& message = corruptions[static_cast<size_t>(i)].message;
      EXPECT_NE(message.find(DataFilePath(dir_ / "p", i, 2)), std::string::npos) << message;
      EXPECT_NE(message.find("at offset 0"), std::string::npos) << message;
      EXPECT_EQ(corruptions[static_cast<size_t>(i)].error_number, 0);
    }
  }
}

TEST_F(VerifyTest, ReportsElementsThatAreStoredNowhereOrTwice) {
  builder_.AddSliced("hole", DataType::kInt8, {4}, "abcd", {{{0, 2}}, {{3, 1}}});
  builder_.AddSliced("twice", DataType::kInt8, {4}, "abcd", {{{0, 3}}, {{2, 2}}});
  const std::vector<Corruption> corruptions = Verify(2);
  ASSERT_EQ(corruptions.size(), 2U);
  for (const Corruption& corruption : corruptions) EXPECT_EQ(corruption.slice, nullptr);
  EXPECT_EQ(NameOf(corruptions[0]), "hole");
  EXPECT_EQ(NameOf(corruptions[1]), "twice");
}

// A directory will not become a file: the tensors are corrupt, not unreadable for now.
TEST_F(VerifyTest, DirectoryInPlaceOfAFileIsCorruption) {
  builder_.Write(dir_ / "p");
  const std::string file = DataFilePath(dir_ / "p", 1, 2);
  std::filesystem::remove(file);
  std::filesystem::create_directory(file);
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  const std::vector<size_t> large = {checkpoint_->catalog().Find("large")};
  const VerifyResult result = VerifyTensors(*checkpoint_, large, 1, [](uint64_t) {});
  ASSERT_EQ(result.corruptions.size(), 1U);
  EXPECT_EQ(result.corruptions[0].error_number, 0);
}

class VerifyV1Test : public testing::V1Test {
 protected:
  static VerifyResult Verify(const Checkpoint& checkpoint) {
    std::vector<size_t> all(checkpoint.catalog().tensors.size());
    std::iota(all.begin(), all.end(), size_t{0});
    return VerifyTensors(checkpoint, all, 1, [](uint64_t) {});
  }
};

TEST_F(VerifyV1Test, ReadsTheFileAgain) {
  testing::V1Writer writer;  // of one block, which the reader keeps
  writer.Add("ints", DataType::kInt32, {3}, testing::Varints(7, {-1, 300, 5}));
  std::string bytes = writer.Finish(1);
  const auto checkpoint = Open(bytes);
  for (int round = 0; round < 2; ++round) EXPECT_TRUE(Verify(*checkpoint).corruptions.empty());
  const StoredSlice& slice = checkpoint->catalog().Slices(testing::Find(*checkpoint, "ints"))[0];
  ASSERT_EQ(slice.encoding, Encoding::kRecord);
  bytes[slice.offset + 1] = static_cast<char>(bytes[slice.offset + 1] ^ 1);
  Write(bytes);  // the same file
  EXPECT_FALSE(Verify(*checkpoint).corruptions.empty());
}

TEST_F(VerifyV1Test, CountsTheBytesOfABlockOnce) {
  testing::V1Writer writer;
  for (const char* name : {"a", "b", "c"}) {
    writer.Add(name, DataType::kInt32, {3}, testing::Varints(7, {-1, 300, 5}));
  }
  const auto checkpoint = Open(writer.Finish(1 << 20));
  const std::vector<StoredSlice>& slices = checkpoint->catalog().slices;
  ASSERT_EQ(slices.size(), 3U);
  ASSERT_EQ(slices[0].offset, slices[2].offset) << "they are in one block";
  const VerifyResult result = Verify(*checkpoint);
  EXPECT_TRUE(result.corruptions.empty());
  EXPECT_EQ(result.num_bytes, slices[0].size);
}

TEST_F(VerifyTest, ReportsEveryTensorOfAMissingFile) {
  removed_file_ = DataFilePath(dir_ / "p", 1, 2);
  const std::vector<Corruption> corruptions = Verify(3);
  EXPECT_EQ(corruptions.size(), 1 + 25 + 1U);
  for (const Corruption& corruption : corruptions)
    EXPECT_NE(corruption.message.find(removed_file_), std::string::npos);
}

TEST_F(VerifyTest, ReportsUnknownTypesAndMissingChecksums) {
  builder_.Put("u", Record{static_cast<DataType>(99), {2}, 0, 0, 8}.Message());
  builder_.Put("v", testing::VarintField(1, 6) + testing::VarintField(5, 1));
  const std::vector<Corruption> corruptions = Verify(2);
  ASSERT_EQ(corruptions.size(), 2U);
  EXPECT_NE((corruptions[0].message + corruptions[1].message).find("DT_99"), std::string::npos);
  EXPECT_NE((corruptions[0].message + corruptions[1].message).find("no checksum"),
            std::string::npos);
}

TEST_F(VerifyTest, StopsIfProgressThrows) {
  Verify(1);
  std::vector<size_t> all(checkpoint_->catalog().tensors.size());
  std::iota(all.begin(), all.end(), size_t{0});
  for (const int threads : {1, 4}) {
    EXPECT_THROW(VerifyTensors(*checkpoint_, all, threads,
                               [](uint64_t) { throw std::domain_error("enough"); }),
                 std::domain_error);
  }
}

TEST_F(VerifyTest, AcceptsSomeTensorsOrNone) {
  Verify(1);
  EXPECT_TRUE(
      VerifyTensors(*checkpoint_, {}, 4, [](uint64_t) { ADD_FAILURE(); }).corruptions.empty());
  const std::vector<size_t> one = {checkpoint_->catalog().Find("a")};
  std::atomic<uint64_t> bytes{0};
  EXPECT_TRUE(
      VerifyTensors(*checkpoint_, one, 4, [&](uint64_t n) { bytes += n; }).corruptions.empty());
  EXPECT_EQ(bytes.load(), 1000U);
}

class VerifyChecksumsTest : public ::testing::Test {
 protected:
  // Opens the checkpoint again, as another process does.
  std::shared_ptr<const Checkpoint> Open() const {
    return Checkpoint::OpenBundle(dir_ / "p", IoMode::kPread);
  }

  static const Tensor& TensorOf(const Checkpoint& checkpoint) {
    return checkpoint.catalog().tensors.at(checkpoint.catalog().Find("t"));
  }

  std::vector<PartialChecksum> Read(const Box& box, std::string* out) const {
    const auto checkpoint = Open();
    const Tensor& tensor = TensorOf(*checkpoint);
    std::vector<uint8_t> bytes(Volume(box) * RequireKnownType(tensor).item_size);
    std::vector<PartialChecksum> partial =
        ReadBoxWithChecksums(*checkpoint, tensor, box, bytes, {3, false});
    out->assign(bytes.begin(), bytes.end());
    return partial;
  }

  void Verify(const std::vector<PartialChecksum>& partial) const {
    const auto checkpoint = Open();
    VerifyChecksums(*checkpoint, TensorOf(*checkpoint), partial, 2);
  }

  void Flip(uint64_t offset) const {
    std::fstream file(DataFilePath(dir_ / "p", 0, 1), std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 8);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  const TempDir dir_;
  Random random_{7};
};

TEST_F(VerifyChecksumsTest, CombinesRandomReadsOfRandomSlices) {
  for (int round = 0; round < 60; ++round) {
    const std::vector<int64_t> shape = testing::RandomShape(&random_, 4, 9);
    const Box whole = WholeBox(shape);
    std::string bytes(Volume(whole) * 4, '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    BundleBuilder builder(1, /*big_endian=*/false);
    builder.AddSliced("t", DataType::kFloat, shape, bytes,
                      RandomTiling(&random_, whole, static_cast<int>(random_() % 8)));
    builder.Write(dir_ / "p");
    const std::vector<Box> boxes = RandomTiling(&random_, whole, static_cast<int>(random_() % 6));
    const auto read_all = [&] {
      std::vector<PartialChecksum> partial;
      for (const Box& box : boxes) {
        std::string out;
        for (const PartialChecksum& p : Read(box, &out)) partial.push_back(p);
        EXPECT_EQ(out.size(), Volume(box) * 4);
      }
      std::shuffle(partial.begin(), partial.end(), random_);
      return partial;
    };
    std::string out;
    Read(boxes[0], &out);
    ASSERT_EQ(out, CutOut(bytes, shape, boxes[0], 4));
    const std::vector<PartialChecksum> good = read_all();
    Verify(good);
    const uint64_t offset = random_() % bytes.size();
    Flip(offset);
    EXPECT_THROW(Verify(read_all()), CorruptionError) << ShapeToString(shape) << offset;
    EXPECT_THROW(Verify(UnreadSlices(TensorOf(*Open()))), CorruptionError);
    Flip(offset);
    // A wrong checksum is found next to a correct one of the same bytes.
    std::vector<PartialChecksum> bad = good;
    const auto with_bytes =
        std::find_if(bad.begin(), bad.end(), [](const PartialChecksum& p) { return p.size > 0; });
    if (with_bytes == bad.end()) continue;
    PartialChecksum wrong = *with_bytes;
    wrong.crc ^= 1;
    bad.push_back(wrong);
    EXPECT_THROW(Verify(bad), CorruptionError);
  }
}

TEST_F(VerifyChecksumsTest, ReadReturnsOneForEachSliceInTheBox) {
  const std::string bytes(64, 'x');
  BundleBuilder builder;
  builder.AddSliced("t", DataType::kFloat, {4, 4}, bytes,
                    {Box{{0, 2}, {0, 4}}, Box{{2, 2}, {0, 4}}});
  builder.Write(dir_ / "p");
  std::string out;
  const auto rows = Read({{1, 2}, {0, 4}}, &out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ((std::vector<uint64_t>{rows[0].slice, rows[0].offset, rows[0].size}),
            (std::vector<uint64_t>{0, 16, 16}));
  EXPECT_EQ((std::vector<uint64_t>{rows[1].slice, rows[1].offset, rows[1].size}),
            (std::vector<uint64_t>{1, 0, 16}));
  const auto column = Read({{0, 2}, {1, 1}}, &out);
  ASSERT_EQ(column.size(), 1u);
  EXPECT_EQ(column[0], (PartialChecksum{.slice = 0}));
  const auto checkpoint = Open();
  EXPECT_EQ(UnreadSlices(*checkpoint, TensorOf(*checkpoint), {{0, 1}, {0, 1}}),
            std::vector<PartialChecksum>{PartialChecksum{}});
  EXPECT_TRUE(UnreadSlices(*checkpoint, TensorOf(*checkpoint), {{0, 0}, {0, 1}}).empty());
  EXPECT_EQ(UnreadSlices(TensorOf(*checkpoint)).size(), 2u);
}

TEST_F(VerifyChecksumsTest, RejectsRangesOutsideTheSlice) {
  BundleBuilder builder;
  builder.Add("t", DataType::kFloat, {4}, std::string(16, 'x'));
  builder.Write(dir_ / "p");
  Verify({});
  EXPECT_THROW(Verify({{.slice = 1}}), std::invalid_argument);
  EXPECT_THROW(Verify({{.slice = 0, .offset = 8, .size = 9}}), CorruptionError);
  EXPECT_THROW(Verify({{.slice = 0, .offset = UINT64_MAX, .size = 2}}), CorruptionError);
}

TEST_F(VerifyChecksumsTest, ReadsStringsAgain) {
  BundleBuilder builder;
  const std::string payload = std::string(1, '\0') + "....";  // no such checksum
  builder.Add("t", DataType::kString, {1}, payload);
  builder.Write(dir_ / "p");
  EXPECT_THROW(Verify(UnreadSlices(TensorOf(*Open()))), CorruptionError);
}

TEST_F(VerifyChecksumsTest, OpensOnlyTheFilesOfOneTensor) {
  BundleBuilder builder(2);
  builder.Add("t", DataType::kFloat, {1}, "abcd", 0);
  builder.Add("u", DataType::kFloat, {1}, "efgh", 1);
  builder.Write(dir_ / "p");
  auto index = std::make_shared<const BundleIndex>(ReadBundleIndex(dir_ / "p"));
  const Tensor& tensor = index->catalog.tensors.at(index->catalog.Find("u"));
  const auto checkpoint = Checkpoint::OpenTensors(index, std::vector{&tensor}, IoMode::kAuto);
  index.reset();  // the checkpoint keeps it
  std::vector<uint8_t> out(4);
  ReadBox(*checkpoint, tensor, {{0, 1}}, out, {});
  EXPECT_EQ(AsText(out), "efgh");
  EXPECT_THROW(checkpoint->files().Get(0), std::out_of_range);
}

TEST_F(VerifyTest, SaysWhatIsWrongWithTheFile) {
  builder_.AddSliced("hole", DataType::kInt8, {4}, "abcd", {{{0, 1}}, {{2, 2}}});
  builder_.Put("u", Record{static_cast<DataType>(99), {2}, 1, 0, 8}.Message());
  builder_.data(0)[0] = 'x';
  builder_.Write(dir_ / "p");
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 2), 3000);
  std::filesystem::remove(DataFilePath(dir_ / "p", 1, 2));
  std::filesystem::create_directory(DataFilePath(dir_ / "p", 1, 2));
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  std::vector<size_t> all(checkpoint_->catalog().tensors.size());
  std::iota(all.begin(), all.end(), size_t{0});
  std::map<std::string, Corruption> found;
  for (const Corruption& corruption :
       VerifyTensors(*checkpoint_, all, 2, [](uint64_t) {}).corruptions) {
    found.emplace(NameOf(corruption), corruption);
  }
  // The bytes of "a" differ, in a file that was cut off behind them.
  const Corruption& damaged = found.at("a");
  EXPECT_NE(damaged.message.find("the bytes give"), std::string::npos) << damaged.message;
  EXPECT_NE(damaged.message.find("was cut off"), std::string::npos) << damaged.message;
  EXPECT_NE(damaged.cause.find("was cut off"), std::string::npos) << damaged.cause;
  // The second file is a directory, and will remain one.
  const Corruption& unread = found.at("large");
  EXPECT_EQ(unread.error_number, 0);
  EXPECT_TRUE(unread.message.starts_with("tensor 'large': " + unread.cause)) << unread.cause;
  EXPECT_NE(unread.cause.find("directory"), std::string::npos);
  EXPECT_EQ(found.at("hole").slice, nullptr);
  EXPECT_EQ(found.at("u").cause, "");
}

// A failed system call tells nothing about the bytes.
TEST_F(VerifyTest, ReportsFailedCallsWithTheirNumber) {
  builder_.Write(dir_ / "p");
  const auto index = std::make_shared<const BundleIndex>(ReadBundleIndex(dir_ / "p"));
  const Tensor& tensor = index->catalog.tensors.at(0);
  for (const auto& [error, reported] :
       {std::pair(EIO, EIO), std::pair(EISDIR, 0), std::pair(EINVAL, 0), std::pair(ELOOP, 0)}) {
    const FileOpener opener = [error = error](const std::string& path,
                                              ReadMode) -> std::shared_ptr<const File> {
      throw IOFailure("cannot open " + path, path, error);
    };
    const auto checkpoint =
        Checkpoint::OpenTensors(index, std::vector{&tensor}, IoMode::kAuto, opener);
    const std::vector<size_t> first{0};
    const VerifyResult result = VerifyTensors(*checkpoint, first, 1, [](uint64_t) {});
    ASSERT_EQ(result.corruptions.size(), 1u);
    EXPECT_EQ(result.corruptions[0].error_number, reported);
    EXPECT_EQ(result.num_bytes, 0u);
  }
}

// Slices of a file that is newer than its index are compared before they are used in part.
TEST_F(VerifyTest, ComparesDoubtfulSlicesOnce) {
  BundleBuilder builder;
  builder.Add("good", DataType::kInt8, {4}, "abcd").Add("bad", DataType::kInt8, {4}, "efgh");
  builder.Add("none", DataType::kInt8, {0}, "");
  builder.Put("unknown",
              testing::VarintField(1, 6) +
                  testing::BytesField(2, testing::ShapeMessage(std::vector<int64_t>{2})) +
                  testing::VarintField(5, 2));
  builder.Write(dir_ / "p");
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  std::filesystem::remove(DataFilePath(dir_ / "p", 0, 1));
  dir_.Write("p.data-00000-of-00001", "abcdefgX");
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kPread);
  ASSERT_TRUE(checkpoint_->files().IsDoubtful(0));
  const auto require = [&](const char* name) {
    const Catalog& catalog = checkpoint_->catalog();
    const Tensor& tensor = catalog.tensors.at(catalog.Find(name));
    RequireReadable(*checkpoint_, tensor, catalog.Slices(tensor)[0]);
  };
  for (int round = 0; round < 2; ++round) {
    EXPECT_NO_THROW(require("good"));
    EXPECT_NO_THROW(require("none"));
    EXPECT_NO_THROW(require("unknown"));  // it has no checksum to compare
    try {
      require("bad");
      ADD_FAILURE() << "used bytes of another checkpoint";
    } catch (const CorruptionError& error) {
      EXPECT_NE(std::string(error.what()).find("the file is newer than its index"),
                std::string::npos);
    }
  }
}

}  // namespace
}  // namespace tensorbundle
