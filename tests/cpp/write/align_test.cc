// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/align.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::BytesField;
using testing::Record;
using testing::TempDir;

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::set<std::string> NamesIn(const TempDir& dir) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "")) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

AlignSummary Align(const std::string& source, const std::string& destination,
                   uint64_t alignment = 4096, int threads = 2) {
  return AlignPlan(source, alignment).Write(destination, threads, [](uint64_t) {});
}

// Returns the T that `run` throws. Fails the test if it throws no T.
template <typename T>
T Caught(const std::function<void()>& run) {
  try {
    run();
  } catch (const T& error) {
    return error;
  }
  throw std::runtime_error("nothing of that type was thrown");
}

// The stored bytes of every slice, by the tensor's name and the slice's number.
std::vector<std::string> StoredBytes(const std::string& prefix) {
  const Catalog catalog = ReadBundleIndex(prefix).catalog;
  std::vector<std::string> all;
  for (const Tensor& tensor : catalog.tensors) {
    for (const StoredSlice& slice : catalog.Slices(tensor)) {
      all.push_back(std::string(tensor.name) + ": " +
                    Contents(catalog.files[slice.file]).substr(slice.offset, slice.size));
    }
  }
  return all;
}

// Sizes around the limits for chunks and alignment, in an order in which no slice is aligned.
BundleBuilder Mixed() {
  BundleBuilder builder(3);
  int32_t shard = 0;
  for (const int64_t size : {1, 0, 63, 999'999, 3, 1'000'000, 262'144, 262'145, 1'500'001}) {
    std::string bytes(static_cast<size_t>(size), '\0');
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * i + bytes.size());
    builder.Add("t" + std::to_string(size), DataType::kUint8, {size}, bytes, shard);
    shard = 2 - shard;  // nothing is in shard 1
  }
  return builder;
}

TEST(Align, AlignsEverySlice) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  for (const uint64_t alignment : {64, 4096, 1 << 21}) {
    const std::string prefix = dir / ("b" + std::to_string(alignment));
    const AlignSummary summary = Align(dir / "a", prefix, alignment);
    EXPECT_EQ(StoredBytes(prefix), StoredBytes(dir / "a"));
    EXPECT_EQ(summary.slices, 9U);
    const Catalog catalog = ReadBundleIndex(prefix).catalog;
    uint64_t after = 0;
    for (const std::string& file : catalog.files) after += std::filesystem::file_size(file);
    EXPECT_EQ(summary.bytes_after, after);
    for (const StoredSlice& slice : catalog.slices) {
      EXPECT_EQ(slice.offset % (slice.size >= 1'000'000 ? alignment : 64), 0U) << slice.size;
    }
    EXPECT_FALSE(std::filesystem::exists(DataFilePath(prefix, 1, 3)));
  }
}

TEST(Align, EveryShardBeginsAtItsFirstSlice) {
  const TempDir dir;
  BundleBuilder builder(2);
  builder.Add("a", DataType::kUint8, {100}, std::string(100, 'a'));
  builder.Add("b", DataType::kUint8, {2}, "bb", 1);
  builder.Write(dir / "a");
  Align(dir / "a", dir / "b");
  EXPECT_EQ(Contents(dir / "b.data-00000-of-00002"), std::string(100, 'a'));
  EXPECT_EQ(Contents(dir / "b.data-00001-of-00002"), "bb");
}

TEST(Align, IsIdempotent) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  Align(dir / "a", dir / "b");
  EXPECT_EQ(Align(dir / "b", dir / "c").moved, 0U);
  EXPECT_EQ(Contents(dir / "c.index"), Contents(dir / "b.index"));
  for (const int32_t shard : {0, 2}) {
    EXPECT_EQ(Contents(DataFilePath(dir / "c", shard, 3)),
              Contents(DataFilePath(dir / "b", shard, 3)));
  }
}

TEST(Align, IsIndependentOfTheNumberOfThreads) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  Align(dir / "a", dir / "one", 4096, 1);
  Align(dir / "a", dir / "many", 4096, 1000);
  EXPECT_EQ(Contents(dir / "many.index"), Contents(dir / "one.index"));
  EXPECT_EQ(StoredBytes(dir / "many"), StoredBytes(dir / "one"));
}

TEST(Align, SharedBytesStayShared) {
  const TempDir dir;
  BundleBuilder builder;
  const Record record = builder.Store(DataType::kUint8, {100}, std::string(100, 'x'));
  builder.Put("a", record.Message()).Put("b", record.Message());
  builder.Add("c", DataType::kUint8, {1}, "y").Write(dir / "a");
  const AlignSummary summary = Align(dir / "a", dir / "b");
  EXPECT_EQ(summary.bytes_after, 128 + 1U);
  EXPECT_EQ(StoredBytes(dir / "b"), StoredBytes(dir / "a"));
}

TEST(Align, RefusesInflatingOverlaps) {
  const TempDir dir;
  BundleBuilder builder;
  Record record = builder.Store(DataType::kUint8, {100}, std::string(110, 'x'));
  record.size = 100;
  record.crc = crc32c::Value(std::string(100, 'x').data(), 100);
  builder.Put("a", record.Message()).Write(dir / "a");
  EXPECT_EQ(Align(dir / "a", dir / "b").bytes_after, 100U);
  record.offset = 10;
  builder.Put("b", record.Message()).Write(dir / "overlapping");
  EXPECT_THROW(Align(dir / "overlapping", dir / "c"), UnsupportedError);
}

TEST(Align, KeepsUnknownFields) {
  const TempDir dir;
  BundleBuilder builder;
  const std::string unknown = BytesField(99, "from the future");
  const Record first = builder.Store(DataType::kUint8, {1}, "x");
  const Record second = builder.Store(static_cast<DataType>(77), {2}, "four");
  builder.Put("a", first.Message()).Put("b", second.Message() + unknown).Write(dir / "a");
  Align(dir / "a", dir / "b");
  const std::string index = Contents(dir / "b.index");
  EXPECT_NE(index.find(unknown), std::string::npos);
  EXPECT_EQ(StoredBytes(dir / "b"), StoredBytes(dir / "a"));
}

TEST(Align, CopiesUnlistedSliceRecords) {
  const TempDir dir;
  BundleBuilder builder;
  builder.Add("pad", DataType::kUint8, {1}, "x");
  const std::string key = SliceKey("w", Box{{0, 2}});
  builder.Put(key, builder.Store(DataType::kUint8, {2}, "yz").Message()).Write(dir / "a");
  EXPECT_EQ(Align(dir / "a", dir / "b").slices, 2U);
  EXPECT_EQ(Contents(DataFilePath(dir / "b", 0, 1)).substr(64), "yz");
  builder.data().back() = '!';
  builder.Write(dir / "corrupted");
  const auto error = Caught<CorruptionError>([&] { Align(dir / "corrupted", dir / "c"); });
  EXPECT_NE(std::string(error.what()).find("which no tensor lists"), std::string::npos);
  builder.Put(key, Record{.dtype = DataType::kUint8, .dims = {2}, .shard = 7, .size = 2}.Message());
  builder.Write(dir / "beyond");
  EXPECT_THROW(Align(dir / "beyond", dir / "c"), CorruptionError);
}

TEST(Align, RejectsImpossibleSliceRecords) {
  const TempDir dir;
  const std::string key = SliceKey("w", Box{{0, 2}});
  const auto u8 = DataType::kUint8;
  const std::string messages[] = {
      Record{.dtype = u8, .dims = {2}, .shard = -1, .size = 2}.Message(),
      Record{.dtype = u8, .dims = {2}, .offset = UINT64_MAX, .size = 2}.Message(),
      Record{.dtype = u8, .dims = {2}, .size = UINT64_MAX}.Message(),
      Record{.dtype = u8, .dims = {2}, .offset = 1, .size = INT64_MAX}.Message(),
  };
  for (const std::string& message : messages) {
    BundleBuilder builder;
    builder.Add("pad", u8, {1}, "x").Put(key, message).Write(dir / "a");
    const auto error = Caught<CorruptionError>([&] { Align(dir / "a", dir / "b"); });
    EXPECT_NE(std::string(error.what()).find("is impossible"), std::string::npos) << error.what();
  }
}

// Slices at the same offset of other files, and ones that share bytes but not the checksum.
TEST(Align, NamesTheDamagedSlice) {
  const TempDir dir;
  BundleBuilder builder(2);
  builder.Add("a", DataType::kUint8, {3}, "abc", 0).Add("b", DataType::kUint8, {3}, "abc", 1);
  builder.data(1)[0] ^= 1;
  builder.Write(dir / "a");
  auto error = Caught<CorruptionError>([&] { Align(dir / "a", dir / "x"); });
  EXPECT_NE(std::string(error.what()).find("tensor 'b'"), std::string::npos) << error.what();
  BundleBuilder shared;
  shared.Add("a", DataType::kUint8, {3}, "abc");
  shared.data() += "room for a second copy";
  shared.Put("b", Record{DataType::kUint8, {3}, 0, 0, 3, 12345}.Message()).Write(dir / "b");
  error = Caught<CorruptionError>([&] { Align(dir / "b", dir / "x"); });
  EXPECT_NE(std::string(error.what()).find("tensor 'b'"), std::string::npos) << error.what();
}

TEST(Align, RejectsFilesOfAnotherKind) {
  const TempDir dir;
  BundleBuilder().Add("t", DataType::kUint8, {300}, std::string(300, 'x')).Write(dir / "a");
  dir.Write("a.data-00000-of-00001", "version https://git-lfs.github.com/spec/v1\n");
  const auto error = Caught<CorruptionError>([&] { Align(dir / "a", dir / "b"); });
  EXPECT_NE(std::string(error.what()).find("Git-LFS"), std::string::npos) << error.what();
}

TEST(Align, CorruptionLeavesNoFile) {
  const TempDir dir;
  BundleBuilder builder = Mixed();
  builder.data(2)[500'000] ^= 1;
  builder.Write(dir / "a");
  const std::set<std::string> before = NamesIn(dir);
  const auto error = Caught<CorruptionError>([&] { Align(dir / "a", dir / "new/b"); });
  EXPECT_NE(std::string(error.what()).find("tensor 't999999'"), std::string::npos) << error.what();
  EXPECT_EQ(NamesIn(dir), before);
}

TEST(Align, ChecksAllShardsBeforeItWrites) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  const std::string shard = DataFilePath(dir / "a", 2, 3);
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  const AlignPlan plan(dir / "a", 4096);
  std::atomic<uint64_t> copied = 0;
  const auto count = [&](uint64_t bytes) { copied += bytes; };
  EXPECT_THROW(plan.Write(dir / "b", 1, count), CorruptionError);
  std::filesystem::remove(shard);
  const auto error = Caught<CheckpointNotFoundError>([&] { plan.Write(dir / "b", 1, count); });
  EXPECT_EQ(error.path(), shard);
  EXPECT_EQ(copied, 0U);
}

TEST(Align, ReplacesNoFile) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  EXPECT_THROW(Align(dir / "a", dir / "a"), std::invalid_argument);
  std::filesystem::create_symlink(dir / "a.index", dir / "link.index");
  EXPECT_THROW(Align(dir / "a", dir / "link"), std::invalid_argument);
  for (const std::string name : {"b.index", "b.data-00002-of-00003", "b"}) {
    dir.Write(name, "mine");
    const auto error = Caught<IOFailure>([&] { Align(dir / "a", dir / "b"); });
    EXPECT_EQ(error.error_number(), EEXIST);
    EXPECT_EQ(error.path(), dir / name);
    EXPECT_EQ(Contents(dir / name), "mine");
    std::filesystem::remove(dir / name);
  }
  std::filesystem::create_symlink(dir / "nowhere", dir / "b.index");  // dangles
  EXPECT_EQ(Caught<IOFailure>([&] { Align(dir / "a", dir / "b"); }).error_number(), EEXIST);
}

// Two runs at once: the second one fails, and removes no file of the first one.
TEST(Align, ConcurrentRuns) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  for (const std::string name : {"b.data-00000-of-00003", "b.data-00002-of-00003", "b.index"}) {
    const std::set<std::string> before = NamesIn(dir);
    const auto interfere = [&](uint64_t) { dir.Write(name, "theirs"); };
    const AlignPlan plan(dir / "a", 4096);
    const auto error = Caught<IOFailure>([&] { plan.Write(dir / "b", 1, interfere); });
    EXPECT_EQ(error.error_number(), EEXIST) << name;
    EXPECT_EQ(Contents(dir / name), "theirs");
    std::filesystem::remove(dir / name);
    EXPECT_EQ(NamesIn(dir), before);
  }
}

TEST(Align, ProgressMayThrow) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  const std::set<std::string> before = NamesIn(dir);
  const AlignPlan plan(dir / "a", 4096);
  uint64_t total = 0;
  plan.Write(dir / "b", 1, [&](uint64_t bytes) { total += bytes; });
  EXPECT_EQ(total, plan.bytes_to_copy());
  uint64_t copied = 0;
  const auto stop = [&](uint64_t bytes) {
    if ((copied += bytes) > total / 2) throw std::domain_error("enough");
  };
  EXPECT_THROW(plan.Write(dir / "c", 2, stop), std::domain_error);
  for (const std::string& name : NamesIn(dir)) EXPECT_NE(name[0], 'c');
}

TEST(Align, InvalidAlignments) {
  const TempDir dir;
  Mixed().Write(dir / "a");
  for (const uint64_t alignment :
       {uint64_t{0}, uint64_t{1}, uint64_t{32}, uint64_t{96}, uint64_t{1} << 31, UINT64_MAX}) {
    EXPECT_THROW(AlignPlan(dir / "a", alignment), std::invalid_argument) << alignment;
  }
}

TEST(Align, MoreShardsThanOpenFiles) {
  constexpr int32_t kShards = 100;
  const TempDir dir;
  BundleBuilder builder(kShards);
  for (int32_t i = 0; i < kShards; ++i) {
    builder.Add(std::to_string(i), DataType::kUint8, {1}, "x", i);
  }
  builder.Write(dir / "a");
  struct rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  struct rlimit few = before;
  few.rlim_cur = 50;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  EXPECT_EQ(Align(dir / "a", dir / "b").slices, static_cast<uint64_t>(kShards));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(Align, CheckpointWithoutTensors) {
  const TempDir dir;
  BundleBuilder().Write(dir / "a");
  EXPECT_EQ(Align(dir / "a", dir / "b").slices, 0U);
  EXPECT_EQ(Contents(dir / "b.index"), Contents(dir / "a.index"));
}

// The sum of the slices exceeds the largest file, but each of them is possible.
TEST(Align, SlicesTooLargeForAFile) {
  const TempDir dir;
  BundleBuilder builder;
  for (const char* name : {"a", "b", "c"}) {
    builder.Put(name, Record{.dtype = DataType::kUint8,
                             .dims = {INT64_MAX / 2},
                             .offset = static_cast<uint64_t>(name[0]),
                             .size = INT64_MAX / 2}
                          .Message());
  }
  builder.Write(dir / "a");
  EXPECT_THROW(AlignPlan(dir / "a", 4096), CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
