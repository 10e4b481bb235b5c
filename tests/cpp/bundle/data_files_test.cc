// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/data_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

Catalog CatalogOf(std::vector<std::string> paths, std::vector<uint64_t> ends = {}) {
  Catalog catalog;
  catalog.files = std::move(paths);
  catalog.file_ends = std::move(ends);
  return catalog;
}

TEST(DataFiles, MissingFileAffectsNoOtherFile) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir / "gone", dir.Write("here", "abc"), dir / "."});
  const DataFiles files(catalog, IoMode::kAuto);
  EXPECT_EQ(files.Get(1).size(), 3U);
  EXPECT_EQ(AsText(files.MapForViews(1)->bytes()), "abc");
  EXPECT_EQ(AsText(files.MapForReading(1)->bytes()), "abc");
  for (int round = 0; round < 2; ++round) {
    EXPECT_THROW(files.Get(0), CheckpointNotFoundError);
    EXPECT_THROW(files.MapForViews(0), CheckpointNotFoundError);
    EXPECT_THROW(files.Get(2), IOFailure);
  }
  EXPECT_THROW(files.Get(3), std::out_of_range);
  dir.Write("gone", "back");
  EXPECT_EQ(AsText(files.MapForReading(0)->bytes()), "back");
}

TEST(DataFiles, OpensOnlyWantedFiles) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("a", "1"), dir.Write("b", "2")});
  const std::vector<bool> wanted{false, true};
  const DataFiles files(catalog, IoMode::kAuto, std::nullopt, &wanted);
  EXPECT_THROW(files.Get(0), std::out_of_range);
  EXPECT_EQ(files.Get(1).size(), 1U);
}

TEST(DataFiles, ModesThatNeverMap) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("f", "abc")});
  EXPECT_EQ(DataFiles(catalog, IoMode::kPread).MapForViews(0), nullptr);
  EXPECT_EQ(DataFiles(catalog, IoMode::kPread).MapForReading(0), nullptr);
  EXPECT_NE(DataFiles(catalog, IoMode::kMmap).MapForViews(0), nullptr);
}

TEST(DataFiles, DoesNotMapAShrunkFile) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("f", "abc")});
  const DataFiles files(catalog, IoMode::kAuto);
  EXPECT_NO_THROW(files.MapForViews(0));
  std::filesystem::resize_file(dir / "f", 2);
  EXPECT_THROW(files.MapForViews(0), CorruptionError);
  EXPECT_THROW(files.MapForReading(0), CorruptionError);
}

// Writes to a view are visible in views only.
TEST(DataFiles, ViewsArePrivate) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir.Write("f", "abc")});
  const DataFiles files(catalog, IoMode::kAuto);
  files.MapForViews(0)->writable_data()[0] = 'X';
  EXPECT_EQ(AsText(files.MapForViews(0)->bytes()), "Xbc");
  EXPECT_EQ(AsText(files.MapForReading(0)->bytes()), "abc");
  uint8_t byte = 0;
  files.Get(0).ReadAt(0, {&byte, 1});
  EXPECT_EQ(byte, 'a');
}

TEST(DataFiles, DiagnosesFilesOfOtherKinds) {
  const TempDir dir;
  const Catalog catalog = CatalogOf(
      {dir.Write("exact", "abc"), dir.Write("longer", "abcd"), dir.Write("short", "ab"),
       dir.Write("empty", ""), dir.Write("lfs", "version https://git-lfs.github.com/spec/v1\n"),
       dir.Write("html", " <!DOCTYPE HTML>"), dir.Write("no bytes wanted", "")},
      {3, 3, 3, 3, 3, 3, 0});
  const DataFiles files(catalog, IoMode::kAuto);
  const auto reason = [&](uint32_t file) { return files.DescribeError(file); };
  EXPECT_EQ(reason(0), "");
  EXPECT_EQ(reason(1), "");
  EXPECT_NE(reason(2).find("2 bytes, its stored slices end at 3"), std::string::npos);
  EXPECT_NE(reason(3).find("is empty"), std::string::npos);
  EXPECT_NE(reason(4).find("Git-LFS"), std::string::npos);
  EXPECT_NE(reason(5).find("HTML"), std::string::npos);
  EXPECT_EQ(reason(6), "");
}

TEST(DataFiles, ReplacedIndex) {
  const TempDir dir;
  const std::string path = dir.Write("p.index", "old");
  const IndexFile index{path, File::Open(path)->identity()};
  EXPECT_FALSE(index.WasReplaced());
  const Catalog catalog = CatalogOf({dir / "gone"});
  const DataFiles files(catalog, IoMode::kAuto, index);
  std::filesystem::remove(path);
  EXPECT_FALSE(index.WasReplaced());  // deleted
  dir.Write("p.index", "newer");
  EXPECT_TRUE(index.WasReplaced());
  dir.Write("gone", "of the newer one");
  EXPECT_THROW(files.Get(0), CorruptionError);
}

TEST(DataFiles, ReplacedIndexOfTheSameSize) {
  const TempDir dir;
  const std::string path = dir.Write("p.index", "old");
  const IndexFile index{path, File::Open(path)->identity()};
  std::filesystem::rename(dir.Write("aside", "new"), path);
  EXPECT_TRUE(index.WasReplaced());
}

TEST(DataFiles, RecognizesArchives) {
  const TempDir dir;
  const std::string tar = std::string(257, 'x') + "ustar" + std::string(300, 'x');
  const Catalog catalog =
      CatalogOf({dir.Write("gzip", "\x1f\x8b\x08 more"), dir.Write("zip", "PK\x03\x04"),
                 dir.Write("xz", std::string("\xfd\x37zXZ\0", 6)), dir.Write("tar", tar)},
                {3, 400, 400, 400});  // archives are longer or shorter than the data
  const DataFiles files(catalog, IoMode::kAuto);
  const char* const kinds[] = {"gzip", "zip", "xz", "tar"};
  for (uint32_t file = 0; file < 4; ++file) {
    EXPECT_NE(files.DescribeError(file).find(kinds[file]), std::string::npos);
    EXPECT_FALSE(files.Diagnosis(file).is_certain);
  }
}

TEST(DataFiles, FailsInSeveralThreads) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir / "gone"});
  const DataFiles files(catalog, IoMode::kAuto);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        try {
          files.Get(0);
          ADD_FAILURE();
        } catch (const CheckpointNotFoundError& error) {
          EXPECT_EQ(error.path(), dir / "gone");
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Some threads ask before the file exists.
TEST(DataFiles, OpensAFileOnceInSeveralThreads) {
  const TempDir dir;
  const Catalog catalog = CatalogOf({dir / "f"});
  const DataFiles files(catalog, IoMode::kAuto);
  dir.Write("f", "abc");
  std::vector<std::thread> threads;
  std::vector<const File*> found(4);
  for (size_t i = 0; i < found.size(); ++i) {
    threads.emplace_back([&, i] {
      found[i] = &files.Get(0);
      EXPECT_EQ(AsText(files.MapForViews(0)->bytes()), "abc");
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const File* file : found) EXPECT_EQ(file, found[0]);
}

}  // namespace
}  // namespace tensorbundle
