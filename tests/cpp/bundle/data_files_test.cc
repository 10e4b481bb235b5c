// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/data_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

TEST(DataFiles, OneMissingFileConcernsNobodyElse) {
  const TempDir dir;
  const DataFiles files({dir / "gone", dir.Write("here", "abc"), dir / "."}, IoMode::kAuto);
  EXPECT_EQ(files.Get(1).size(), 3U);
  EXPECT_EQ(AsText(files.Map(1)->bytes()), "abc");
  for (int round = 0; round < 2; ++round) {
    EXPECT_THROW(files.Get(0), CheckpointNotFoundError);
    EXPECT_THROW(files.Map(0), CheckpointNotFoundError);
    EXPECT_THROW(files.Get(2), IOFailure);
  }
  EXPECT_THROW(files.Get(3), std::out_of_range);
}

TEST(DataFiles, ModesThatNeverMap) {
  const TempDir dir;
  const std::vector<std::string> paths = {dir.Write("f", "abc")};
  EXPECT_EQ(DataFiles(paths, IoMode::kPread).Map(0), nullptr);
  EXPECT_NE(DataFiles(paths, IoMode::kMmap).Map(0), nullptr);
}

TEST(DataFiles, AShrunkFileIsNotShown) {
  const TempDir dir;
  const DataFiles files({dir.Write("f", "abc")}, IoMode::kAuto);
  EXPECT_NO_THROW(files.Map(0));
  std::filesystem::resize_file(dir / "f", 2);
  EXPECT_THROW(files.Map(0), CorruptionError);
}

TEST(DataFiles, ThreadsMayFailTogether) {
  const TempDir dir;
  const DataFiles files({dir / "gone"}, IoMode::kAuto);
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

}  // namespace
}  // namespace tensorbundle
