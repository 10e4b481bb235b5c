// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/slice_copier.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::Record;
using testing::TempDir;

using Offsets = std::optional<std::vector<uint64_t>>;

class SliceCopier : public ::testing::Test {
 protected:
  // Opens a checkpoint with one tensor.
  void Open(const BundleBuilder& builder) {
    builder.Write(dir_ / "p");
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  }

  const Tensor& tensor() const { return checkpoint_->catalog().tensors.front(); }
  Offsets RowRanges() const { return RowRangeOffsets(checkpoint_->catalog(), tensor()); }

  // Copies all slices to the byte 5 of a new file, and returns the file.
  std::string Copied(int threads = 2) {
    const int descriptor = ::open((dir_ / "out").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    const OutputFile out("out", descriptor);
    const Offsets offsets = RowRanges();
    std::vector<SliceCopy> copies;
    for (const StoredSlice& slice : checkpoint_->catalog().Slices(tensor())) {
      copies.push_back(CopyOf(checkpoint_, tensor(), slice));
      copies.back().to = &out;
      copies.back().to_offset = 5 + offsets.value()[copies.size() - 1];
    }
    CopySlices(copies, threads, [this](uint64_t bytes) { reported_ += bytes; });
    ::close(descriptor);
    std::ifstream file(dir_ / "out", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TempDir dir_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::atomic<uint64_t> reported_{0};
};

std::string Pattern(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * i + i);
  return bytes;
}

TEST_F(SliceCopier, RowRangesInAnyOrderGetTheirOffsets) {
  const std::string bytes = Pattern(5 * 2 * 4);
  Open(BundleBuilder(2).AddSliced("t", DataType::kFloat, {5, 2}, bytes,
                                  {{{3, 2}, {0, 2}}, {{0, 1}, {0, 2}}, {{1, 2}, {0, 2}}}));
  EXPECT_EQ(RowRanges(), (Offsets{{24, 0, 8}}));
  EXPECT_EQ(Copied(), std::string(5, '\0') + bytes);
  EXPECT_EQ(reported_, bytes.size());
}

TEST_F(SliceCopier, WholeTensorsAreOneRange) {
  Open(BundleBuilder().Add("scalar", DataType::kFloat, {}, Pattern(4)));
  EXPECT_EQ(RowRanges(), (Offsets{{0}}));
  Open(BundleBuilder().Add("empty", DataType::kFloat, {0, 3}, ""));
  EXPECT_EQ(RowRanges(), (Offsets{{0}}));
  EXPECT_EQ(Copied(), "");
}

TEST_F(SliceCopier, LargeSlicesAreCopiedByAnyNumberOfThreads) {
  const std::string bytes = Pattern(3'000'001);
  Open(BundleBuilder().Add("t", DataType::kUint8, {3'000'001}, bytes));
  for (const int threads : {1, 2, 100}) {
    EXPECT_EQ(Copied(threads).substr(5), bytes) << threads;
  }
}

TEST_F(SliceCopier, OtherLayoutsHaveNoRowRanges) {
  const std::string bytes = Pattern(4 * 4);
  Open(BundleBuilder().AddSliced("columns", DataType::kFloat, {2, 2}, bytes,
                                 {{{0, 2}, {0, 1}}, {{0, 2}, {1, 1}}}));
  EXPECT_EQ(RowRanges(), std::nullopt);
  Open(BundleBuilder().AddSliced("parts of rows", DataType::kFloat, {4, 2}, Pattern(4 * 8),
                                 {{{0, 2}, {0, 1}}, {{2, 2}, {1, 1}}}));
  EXPECT_EQ(RowRanges(), std::nullopt);
  Open(BundleBuilder().AddSliced("hole", DataType::kFloat, {4}, bytes, {{{0, 1}}, {{2, 2}}}));
  EXPECT_EQ(RowRanges(), std::nullopt);
  Open(BundleBuilder().AddSliced("no end", DataType::kFloat, {4}, bytes, {{{0, 2}}, {{2, 1}}}));
  EXPECT_EQ(RowRanges(), std::nullopt);
  Open(BundleBuilder().AddSliced("overlap", DataType::kFloat, {4}, bytes, {{{0, 3}}, {{2, 2}}}));
  EXPECT_EQ(RowRanges(), std::nullopt);
}

TEST_F(SliceCopier, StringsAreNotRows) {
  Open(BundleBuilder().Add("s", DataType::kString, {1}, std::string("\1\0\0\0\0a", 6)));
  EXPECT_EQ(RowRanges(), std::nullopt);
}

TEST_F(SliceCopier, BigEndianCheckpointsCannotBeCopied) {
  Open(BundleBuilder(1, true).Add("t", DataType::kFloat, {1}, Pattern(4)));
  EXPECT_FALSE(CanCopySlices(*checkpoint_));
  Open(BundleBuilder().Add("t", DataType::kFloat, {1}, Pattern(4)));
  EXPECT_TRUE(CanCopySlices(*checkpoint_));
}

TEST_F(SliceCopier, DamagedBytesThrow) {
  BundleBuilder builder;
  builder.Add("t", DataType::kUint8, {600'000}, Pattern(600'000));
  builder.data()[599'999] ^= 1;
  Open(builder);
  EXPECT_THROW(Copied(), CorruptionError);
}

TEST_F(SliceCopier, SlicesWithoutChecksumThrow) {
  BundleBuilder builder;
  const Record stored = builder.Store(DataType::kUint8, {3}, "abc");
  builder.Put("t", testing::VarintField(1, static_cast<uint64_t>(DataType::kUint8)) +
                       testing::BytesField(2, testing::ShapeMessage(stored.dims)) +
                       testing::VarintField(5, stored.size));
  Open(builder);
  EXPECT_THROW(Copied(), CorruptionError);
}

TEST_F(SliceCopier, FailedWritesThrow) {
  Open(BundleBuilder().Add("t", DataType::kUint8, {3}, "abc"));
  const OutputFile out("/nowhere/out", -1);
  SliceCopy copy = CopyOf(checkpoint_, tensor(), checkpoint_->catalog().Slices(tensor())[0]);
  copy.to = &out;
  try {
    CopySlices({&copy, 1}, 1, [](uint64_t) {});
    FAIL();
  } catch (const IOFailure& error) {
    EXPECT_EQ(error.error_number(), EBADF);
    EXPECT_NE(std::string(error.what()).find("/nowhere/out"), std::string::npos);
  }
}

TEST_F(SliceCopier, MoreSlicesThanABatch) {
  const std::string bytes = Pattern(1000);
  std::vector<Box> rows;
  for (int64_t i = 0; i < 1000; ++i) rows.push_back({{i, 1}});
  Open(BundleBuilder(3).AddSliced("t", DataType::kUint8, {1000}, bytes, rows));
  EXPECT_EQ(Copied().substr(5), bytes);
}

// The elements of strings are compared with the checksums in them.
TEST_F(SliceCopier, StringsAreCopiedAndCompared) {
  for (const bool is_damaged : {false, true}) {
    std::string stored("\1\0\0\0\0a", 6);
    const char length[] = "\1\0\0\0";
    const uint32_t masked = crc32c::Mask(crc32c::Value(length, 4));
    std::memcpy(stored.data() + 1, &masked, 4);
    uint32_t crc = crc32c::Extend(crc32c::Value(length, 4), stored.data() + 1, 4);
    crc = crc32c::Extend(crc, "a", 1);
    if (is_damaged) stored[1] ^= 1;
    BundleBuilder builder;
    testing::Record record = builder.Store(DataType::kString, {1}, stored);
    record.crc = crc;
    Open(builder.Put("s", record.Message()));
    const OutputFile out("out", ::open((dir_ / "out").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    SliceCopy copy = CopyOf(checkpoint_, tensor(), checkpoint_->catalog().Slices(tensor())[0]);
    copy.to = &out;
    if (is_damaged) {
      EXPECT_THROW(CopySlices({&copy, 1}, 1, [](uint64_t) {}), CorruptionError);
    } else {
      CopySlices({&copy, 1}, 1, [](uint64_t) {});
      std::ifstream file(dir_ / "out", std::ios::binary);
      EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), stored);
    }
  }
}

TEST_F(SliceCopier, MissingChecksumsThrow) {
  BundleBuilder builder;
  builder.Store(DataType::kInt8, {2}, "ab");
  builder.Put("t", testing::VarintField(1, 6) +
                       testing::BytesField(2, testing::ShapeMessage(std::vector<int64_t>{2})) +
                       testing::VarintField(5, 2));
  Open(builder);
  EXPECT_THROW(Copied(), CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
