// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> NamesIn(const TempDir& dir) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir / "")) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(AtomicFile, HasItsNameOnlyAfterPublish) {
  const TempDir dir;
  {
    const std::unique_ptr<AtomicFile> file =
        AtomicFile::Create(dir / "f", AtomicFile::RandomNumber());
    file->Resize(6);
    file->WriteAt(3, AsBytes("def"));
    file->WriteAt(1, AsBytes("b"));
    ASSERT_EQ(NamesIn(dir).size(), 1U);
    EXPECT_EQ(NamesIn(dir)[0].rfind("f.tempstate", 0), 0U);
    file->Finish();
    file->Publish();
    EXPECT_EQ(NamesIn(dir), std::vector<std::string>{"f"});
    file->Keep();
  }
  EXPECT_EQ(Contents(dir / "f"), std::string("\0b\0def", 6));
}

TEST(AtomicFile, IsRemovedUnlessKept) {
  const TempDir dir;
  for (const int steps : {1, 2, 3}) {
    const std::unique_ptr<AtomicFile> file =
        AtomicFile::Create(dir / "f", AtomicFile::RandomNumber());
    if (steps > 1) file->Finish();
    if (steps > 2) file->Publish();
  }
  EXPECT_TRUE(NamesIn(dir).empty());
}

TEST(AtomicFile, ReplacesNoFile) {
  const TempDir dir;
  const std::unique_ptr<AtomicFile> file =
      AtomicFile::Create(dir / "f", AtomicFile::RandomNumber());
  file->Finish();
  dir.Write("f", "mine");
  try {
    file->Publish();
    FAIL() << "replaced a file";
  } catch (const IOFailure& error) {
    EXPECT_EQ(error.error_number(), EEXIST);
    EXPECT_EQ(error.path(), dir / "f");
  }
  EXPECT_EQ(Contents(dir / "f"), "mine");
}

TEST(AtomicFile, ManyFilesWithOneName) {
  const TempDir dir;
  std::vector<std::unique_ptr<AtomicFile>> files;
  for (int i = 0; i < 20; ++i)
    files.push_back(AtomicFile::Create(dir / "f", AtomicFile::RandomNumber()));
  EXPECT_EQ(NamesIn(dir).size(), 20U);
}

// The child has the parent's objects, and destroys them.
TEST(AtomicFile, ForkedProcessRemovesNothing) {
  const TempDir dir;
  std::unique_ptr<AtomicFile> unfinished =
      AtomicFile::Create(dir / "f", AtomicFile::RandomNumber());
  std::unique_ptr<AtomicFile> published = AtomicFile::Create(dir / "g", AtomicFile::RandomNumber());
  std::unique_ptr<AtomicDirectory> directory = AtomicDirectory::For(dir / "new/h");
  published->Finish();
  published->Publish();
  const pid_t child = ::fork();
  if (child == 0) {
    unfinished.reset();
    published.reset();
    directory.reset();
    ::_exit(0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(NamesIn(dir).size(), 3U);
}

TEST(AtomicFile, NumberOfATemporaryName) {
  EXPECT_EQ(AtomicFile::NumberOf("f.tempstate123-tb", "f"), 123U);
  for (const char* name :
       {"f.tempstate-tb", "f.tempstate12x-tb", "f.tempstate12", "g.tempstate1-tb",
        "f.tempstate1-tb2", "f.tempstate99999999999999999999-tb", "f"}) {
    EXPECT_EQ(AtomicFile::NumberOf(name, "f"), std::nullopt) << name;
  }
}

TEST(AtomicDirectory, IsCreatedIfItsParentExists) {
  const TempDir dir;
  EXPECT_THROW(AtomicDirectory::For(dir / "a/b/f"), IOFailure);
  {
    const std::unique_ptr<AtomicDirectory> directory = AtomicDirectory::For(dir / "a/f");
    directory->Sync();
    EXPECT_TRUE(std::filesystem::is_directory(dir / "a"));
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "a"));
  AtomicDirectory::For(dir / "a/f")->Keep();
  AtomicDirectory::For(dir / "a/f");  // was there: stays, kept or not
  EXPECT_TRUE(std::filesystem::is_directory(dir / "a"));
}

TEST(AtomicDirectory, IsNotRemovedIfNotEmpty) {
  const TempDir dir;
  {
    const std::unique_ptr<AtomicDirectory> directory = AtomicDirectory::For(dir / "a/f");
    dir.Write("a/theirs", "x");
  }
  EXPECT_EQ(Contents(dir / "a/theirs"), "x");
}

}  // namespace
}  // namespace tensorbundle
