// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/file.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 251);
  return text;
}

std::string ReadText(const File& file, uint64_t offset, size_t size) {
  std::vector<uint8_t> bytes(size, 0xee);
  file.ReadAt(offset, bytes);
  return {bytes.begin(), bytes.end()};
}

// Returns the errno of the IOFailure that Open() throws.
int OpenErrno(const std::string& path) {
  try {
    File::Open(path);
  } catch (const IOFailure& failure) {
    EXPECT_EQ(failure.path(), path);
    return failure.error_number();
  }
  return 0;
}

TEST(File, ReadsAnyRange) {
  const TempDir dir;
  const std::string text = Pattern(10'000);
  const auto file = File::Open(dir.Write("f", text));
  EXPECT_EQ(file->size(), text.size());
  EXPECT_EQ(ReadText(*file, 0, text.size()), text);
  EXPECT_EQ(ReadText(*file, 9'999, 1), text.substr(9'999));
  EXPECT_EQ(ReadText(*file, 10'000, 0), "");
}

TEST(File, ReadingPastTheEndThrows) {
  const TempDir dir;
  const auto file = File::Open(dir.Write("f", "0123456789"));
  EXPECT_THROW(ReadText(*file, 5, 6), CorruptionError);
  EXPECT_THROW(ReadText(*file, 10, 1), CorruptionError);
  EXPECT_THROW(ReadText(*file, 1'000'000, 1), CorruptionError);
  try {
    ReadText(*file, 7, 5);
  } catch (const CorruptionError& error) {
    const std::string what = error.what();
    for (const char* part : {"5 bytes", "offset 7", "3 are there"}) {
      EXPECT_NE(what.find(part), std::string::npos) << what;
    }
  }
}

TEST(File, MissingIsNotFound) {
  const TempDir dir;
  try {
    File::Open(dir / "none");
    FAIL();
  } catch (const CheckpointNotFoundError& error) {
    EXPECT_EQ(error.path(), dir / "none");
  }
  EXPECT_THROW(File::Open(dir.Write("file", "") + "/below"), CheckpointNotFoundError);
  EXPECT_THROW(File::Open(""), CheckpointNotFoundError);
}

TEST(File, OnlyRegularFiles) {
  const TempDir dir;
  EXPECT_EQ(OpenErrno(dir / "."), EISDIR);
  EXPECT_EQ(OpenErrno("/dev/null"), EINVAL);
  // The FIFO has no writer: a blocking open would never return.
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(OpenErrno(dir / "fifo"), EINVAL);
  const int server = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = dir / "socket";
  ASSERT_LT(path.size(), sizeof(address.sun_path));
  std::memcpy(address.sun_path, path.c_str(), path.size());
  ASSERT_EQ(::bind(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_NE(OpenErrno(path), 0);
  ::close(server);
}

TEST(File, SymlinkLoopAndDanglingLink) {
  const TempDir dir;
  std::filesystem::create_symlink("loop", dir / "loop");
  EXPECT_EQ(OpenErrno(dir / "loop"), ELOOP);
  std::filesystem::create_symlink("gone", dir / "dangling");
  EXPECT_THROW(File::Open(dir / "dangling"), CheckpointNotFoundError);
}

TEST(File, DetectsShrinking) {
  const TempDir dir;
  const std::string path = dir.Write("f", std::string(100, 'x'));
  const auto file = File::Open(path);
  EXPECT_NO_THROW(file->CheckNotShrunk());
  std::filesystem::resize_file(path, 200);
  EXPECT_NO_THROW(file->CheckNotShrunk());
  std::filesystem::resize_file(path, 99);
  EXPECT_THROW(file->CheckNotShrunk(), CorruptionError);
  EXPECT_THROW(ReadText(*file, 0, 100), CorruptionError);
  EXPECT_EQ(ReadText(*file, 0, 99), std::string(99, 'x'));
}

TEST(File, OutlivesItsName) {
  const TempDir dir;
  const std::string path = dir.Write("f", "abc");
  const auto file = File::Open(path);
  std::filesystem::remove(path);
  EXPECT_EQ(ReadText(*file, 0, 3), "abc");
}

TEST(File, ClosesItsDescriptor) {
  const TempDir dir;
  const std::string path = dir.Write("f", "abc");
  const int first = File::Open(path)->descriptor();
  EXPECT_EQ(File::Open(path)->descriptor(), first);
  EXPECT_EQ(OpenErrno(dir / "."), EISDIR);
  EXPECT_EQ(File::Open(path)->descriptor(), first) << "a refused file keeps its descriptor";
}

TEST(File, IdentityChangesWithTheFile) {
  const TempDir dir;
  const FileIdentity one = File::Open(dir.Write("f", "abc"))->identity();
  EXPECT_EQ(one, File::Open(dir / "f")->identity());
  EXPECT_NE(one, File::Open(dir.Write("g", "abc"))->identity());
  EXPECT_EQ(one, File::Identify(dir / "f"));
  EXPECT_EQ(File::Identify(dir / "nothing"), std::nullopt);
  EXPECT_EQ(File::Identify(dir / "f/below"), std::nullopt);
}

TEST(File, DirectReadsAgreeWithBufferedOnes) {
  const TempDir dir;
  const std::string text =
      Pattern((2 << 20) + 1234);  // more than one bounce buffer, no whole block
  const std::string path = dir.Write("f", text);
  std::shared_ptr<const File> file;
  try {
    file = File::Open(path, ReadMode::kDirect);
  } catch (const UnsupportedError&) {
    GTEST_SKIP() << "the file system of " << path << " has no direct I/O";
  }
  for (const size_t offset : {0, 1, 511, 4095, 4096, 4097, (1 << 20) - 1, (2 << 20) + 1}) {
    for (const size_t size : {0, 1, 4096, 5000, 1 << 20, (1 << 20) + 4097}) {
      if (offset + size > text.size()) continue;
      ASSERT_EQ(ReadText(*file, offset, size), text.substr(offset, size)) << offset << " " << size;
    }
    ASSERT_EQ(ReadText(*file, offset, text.size() - offset), text.substr(offset));
    EXPECT_THROW(ReadText(*file, offset, text.size() - offset + 1), CorruptionError);
  }
  EXPECT_THROW(ReadText(*file, text.size() + 10'000, 1), CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
