// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/file.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
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

TEST(File, IdentityChangesIfTheFileIsRewrittenInPlace) {
  const TempDir dir;
  const FileIdentity one = *File::Identify(dir.Write("f", "abc"));
  std::this_thread::sleep_for(std::chrono::milliseconds(30));  // more than a tick of the clock
  const FileIdentity two = *File::Identify(dir.Write("f", "xyz"));
  EXPECT_EQ(one.inode, two.inode);
  EXPECT_EQ(one.size, two.size);
  EXPECT_NE(one, two);
  // The time of change differs even if the other one is reset.
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  const auto written = std::filesystem::last_write_time(dir / "f");
  dir.Write("f", "123");
  std::filesystem::last_write_time(dir / "f", written);
  EXPECT_NE(two, *File::Identify(dir / "f"));
}

TEST(File, NoticesThatItMayHaveBeenRewritten) {
  const TempDir dir;
  const std::string path = dir.Write("f", "abc");
  const auto just_written = File::Open(path);
  EXPECT_TRUE(just_written->WasJustWritten());
  EXPECT_TRUE(just_written->MayHaveBeenRewritten());

  std::this_thread::sleep_for(3 * kClockTick);
  const auto file = File::Open(path);
  EXPECT_FALSE(file->WasJustWritten());
  EXPECT_FALSE(file->MayHaveBeenRewritten());
  dir.Write("other", "xyz");
  EXPECT_FALSE(file->MayHaveBeenRewritten());
  std::filesystem::rename(path, dir / "g");
  EXPECT_FALSE(file->MayHaveBeenRewritten()) << "it has another name";
  dir.Write("g", "xyz");
  EXPECT_TRUE(file->MayHaveBeenRewritten());
  EXPECT_TRUE(file->WasRewritten());
  EXPECT_FALSE(file->WasJustWritten()) << "it is about the time of the open";
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

// Serves ranges of a string, and tells of its own end.
class TextReader final : public RangeReader {
 public:
  TextReader(std::string text, bool* is_closed) : text_(std::move(text)), is_closed_(is_closed) {}
  ~TextReader() override { *is_closed_ = true; }

  ByteSpan Read(uint64_t offset, uint64_t size) const override {
    if (offset == kFailing) throw std::logic_error("from the reader");
    EXPECT_LE(size, kMaxRangeSize);
    part_ = text_.substr(std::min<uint64_t>(offset, text_.size()), size);
    if (offset == kLying) part_ = std::string(size + 1, 'x');
    return {reinterpret_cast<const uint8_t*>(part_.data()), part_.size()};
  }

  static constexpr uint64_t kFailing = 5'000'000;
  static constexpr uint64_t kLying = 5'000'001;

 private:
  std::string text_;
  mutable std::string part_;
  bool* is_closed_;
};

TEST(File, ReadsThroughARangeReader) {
  const std::string text = Pattern(3'000'000);
  bool is_closed = false;
  auto file =
      File::OfRanges("store://f", text.size(), std::make_unique<TextReader>(text, &is_closed));
  EXPECT_EQ(file->mode(), ReadMode::kRanges);
  EXPECT_EQ(file->descriptor(), -1);
  EXPECT_EQ(file->path(), "store://f");
  for (const size_t offset : {0, 1, 1 << 20, 2'999'999, 3'000'000}) {
    for (const size_t size : {0, 1, 1 << 20, (1 << 20) + 1, 3'000'000}) {
      if (offset + size > text.size()) {
        EXPECT_THROW(ReadText(*file, offset, size), TruncatedError) << offset << " " << size;
      } else {
        ASSERT_EQ(ReadText(*file, offset, size), text.substr(offset, size)) << offset;
      }
    }
  }
  EXPECT_THROW(ReadText(*file, UINT64_MAX, 1), TruncatedError);
  file = nullptr;
  EXPECT_TRUE(is_closed);
}

TEST(File, DoesNotTrustARangeReader) {
  const std::string text = Pattern(1000);
  bool is_closed = false;
  // The size that it claims is larger than the text.
  const auto file =
      File::OfRanges("store://f", 10'000'000, std::make_unique<TextReader>(text, &is_closed));
  EXPECT_EQ(ReadText(*file, 0, 1000), text);
  EXPECT_THROW(ReadText(*file, 0, 1001), TruncatedError);
  EXPECT_THROW(ReadText(*file, 4'000'000, 1), TruncatedError);
  EXPECT_THROW(ReadText(*file, TextReader::kFailing, 1), std::logic_error);
  EXPECT_THROW(ReadText(*file, TextReader::kLying, 1), CorruptionError);
}

// Serves a string by requests, and counts them.
class TextRequests final : public RequestReader {
 public:
  TextRequests(std::string text, std::atomic<int>* count) : text_(std::move(text)), count_(count) {}

  void Read(uint64_t offset, MutableByteSpan out) const override {
    ++*count_;
    EXPECT_LE(out.size(), kMaxRequestSize);
    ASSERT_LE(offset + out.size(), text_.size());
    if (offset == kFailing) throw std::logic_error("from the reader");
    std::memcpy(out.data(), text_.data() + offset, out.size());
  }

  static constexpr uint64_t kFailing = 123'456;

 private:
  std::string text_;
  std::atomic<int>* count_;
};

TEST(File, ReadsByRequests) {
  const std::string text = Pattern(9'000'000);
  std::atomic<int> count{0};
  const auto file =
      File::OfRequests("https://f", text.size(), std::make_unique<TextRequests>(text, &count));
  EXPECT_EQ(file->mode(), ReadMode::kRequests);
  EXPECT_EQ(file->descriptor(), -1);
  EXPECT_THROW(ReadText(*file, TextRequests::kFailing, 1), std::logic_error);
  for (const size_t offset : {0, 1, 1 << 20, 8'999'999, 9'000'000}) {
    for (const size_t size : {0, 1, 1 << 20, (4 << 20) + 1, 9'000'000}) {
      if (offset + size > text.size()) {
        EXPECT_THROW(ReadText(*file, offset, size), TruncatedError) << offset << " " << size;
      } else {
        ASSERT_EQ(ReadText(*file, offset, size), text.substr(offset, size)) << offset;
      }
    }
  }
  EXPECT_THROW(ReadText(*file, UINT64_MAX, 1), TruncatedError);
  count = 0;
  ReadText(*file, 0, 9'000'000);
  EXPECT_EQ(count, 3);
  ReadText(*file, 0, 0);
  EXPECT_EQ(count, 3);
}

// Answers when another request is being made, too.
class TogetherRequests final : public RequestReader {
 public:
  explicit TogetherRequests(std::atomic<int>* most) : most_(most) {}

  void Read(uint64_t, MutableByteSpan) const override {
    const int running = ++running_;
    if (running > *most_) *most_ = running;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (*most_ < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    --running_;
  }

 private:
  mutable std::atomic<int> running_{0};
  std::atomic<int>* most_;
};

TEST(File, MakesSeveralRequestsAtATime) {
  std::atomic<int> most{0};
  const auto file =
      File::OfRequests("https://f", 9'000'000, std::make_unique<TogetherRequests>(&most));
  ReadText(*file, 0, 9'000'000);
  EXPECT_GE(most, 2);
}

TEST(File, LongReadMakesNoEmptyRequest) {
  const std::string text = Pattern(2 * kMaxRequestSize);
  std::atomic<int> count{0};
  const auto file =
      File::OfRequests("https://f", text.size(), std::make_unique<TextRequests>(text, &count));
  EXPECT_TRUE(ReadText(*file, 0, text.size()) == text);
  EXPECT_EQ(count, 2);
}

TEST(File, ReadsAheadIfSmallReadsFollowOneAnother) {
  const std::string text = Pattern(3'000'000);
  std::atomic<int> count{0};
  const auto file =
      File::OfRequests("https://f", text.size(), std::make_unique<TextRequests>(text, &count));
  for (uint64_t at = 0; at + 1000 <= text.size(); at += 1064) {  // with short gaps
    ASSERT_EQ(ReadText(*file, at, 1000), text.substr(at, 1000));
  }
  EXPECT_LE(count, 5);
  count = 0;
  for (const uint64_t at : {2'000'000, 500'000, 1'000'000, 100'000}) {  // random reads do not
    ASSERT_EQ(ReadText(*file, at, 10), text.substr(at, 10));
  }
  EXPECT_GE(count, 3);
  ASSERT_EQ(ReadText(*file, 2'999'000, 500), text.substr(2'999'000, 500));
  ASSERT_EQ(ReadText(*file, 2'999'500, 500), text.substr(2'999'500, 500));  // up to the end
}

TEST(File, LongReadAfterASmallOneIsNotReadAhead) {
  const std::string text = Pattern(3'000'000);
  std::atomic<int> count{0};
  const auto file =
      File::OfRequests("https://f", text.size(), std::make_unique<TextRequests>(text, &count));
  ReadText(*file, 0, 1000);
  EXPECT_TRUE(ReadText(*file, 1000, 2'000'000) == text.substr(1000, 2'000'000));
  EXPECT_EQ(count, 2);
}

// The reader may fail while it reads ahead; the next read tries again.
TEST(File, FailedReadAheadLeavesTheFileUsable) {
  const std::string text = Pattern(1'000'000);
  std::atomic<int> count{0};
  const auto file =
      File::OfRequests("https://f", text.size(), std::make_unique<TextRequests>(text, &count));
  ReadText(*file, TextRequests::kFailing - 10, 10);
  EXPECT_THROW(ReadText(*file, TextRequests::kFailing, 10), std::logic_error);
  EXPECT_EQ(ReadText(*file, TextRequests::kFailing + 1, 10),
            text.substr(TextRequests::kFailing + 1, 10));
}

TEST(File, ManyThreadsReadByRequests) {
  const std::string text = Pattern(2'000'000);
  std::atomic<int> count{0};
  const auto file =
      File::OfRequests("https://f", text.size(), std::make_unique<TextRequests>(text, &count));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t at = static_cast<uint64_t>(t) * 300; at + 200 <= text.size(); at += 997) {
        if (at == TextRequests::kFailing) continue;
        ASSERT_EQ(ReadText(*file, at, 200), text.substr(at, 200));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace tensorbundle
