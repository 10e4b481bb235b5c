// SPDX-License-Identifier: Apache-2.0
// Data files that do not belong to the index, and slices that are not in their file.
#include "tensorbundle/bundle/checkpoint.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::Record;
using testing::TempDir;

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
