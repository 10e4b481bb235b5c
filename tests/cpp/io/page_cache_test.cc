// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/page_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/bytes.h"

#ifdef __linux__
#include <sys/syscall.h>
#endif

namespace tensorbundle {
namespace {

using testing::TempDir;

constexpr uint64_t kSize = uint64_t{4} << 20;

class PageCacheTest : public ::testing::Test {
 protected:
  PageCacheTest()
      : page_(static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))),
        path_(dir_.Write("f", std::string(kSize, 'x'))),
        file_(File::Open(path_)) {
    ::fdatasync(file_->descriptor());
  }

  // Returns false where pages cannot be dropped, or the system does not report them.
  bool DropPages() const {
    ::posix_fadvise(file_->descriptor(), 0, 0, POSIX_FADV_DONTNEED);
    return ResidentBytes(*file_, 0, kSize) == 0;
  }

  const TempDir dir_;
  const uint64_t page_;
  const std::string path_;
  const std::shared_ptr<const File> file_;
};

// Whether the kernel has preadv2() with RWF_NOWAIT. Emulators of other processors lack it.
bool CanReadWithoutWaiting(const File& file) {
#ifdef RWF_NOWAIT
  char byte = 0;
  const struct iovec one{&byte, sizeof(byte)};
  return ::syscall(SYS_preadv2, file.descriptor(), &one, 1, 0, 0, RWF_NOWAIT) >= 0 ||
         errno == EAGAIN;
#else
  (void)file;
  return false;
#endif
}

TEST_F(PageCacheTest, CountsResidentPages) {
  EXPECT_EQ(ResidentBytes(*file_, 123, 0), 0u);
  const bool is_known = CanReadWithoutWaiting(*file_);
  if (!DropPages()) GTEST_SKIP() << "pages stay in memory, or are not reported";
  uint8_t byte = 0;
  EXPECT_EQ(IsMissingFromCache(*file_, kSize - 1), is_known);
  ::posix_fadvise(file_->descriptor(), 0, 0, POSIX_FADV_RANDOM);  // no read-ahead
  file_->ReadAt(kSize - 1, {&byte, 1});
  EXPECT_FALSE(IsMissingFromCache(*file_, kSize - 1));
  EXPECT_EQ(ResidentBytes(*file_, kSize - page_, page_), page_);
  // A range inside a page counts as the page.
  EXPECT_EQ(ResidentBytes(*file_, kSize - 10, 5), page_);
}

TEST_F(PageCacheTest, StartsToReadPages) {
  if (!DropPages()) GTEST_SKIP() << "pages stay in memory, or are not reported";
  StartReading(*file_, 0, kSize);
  uint64_t resident = 0;
  for (int i = 0; i < 1000 && resident < kSize; ++i) {
    ::usleep(1000);
    resident = ResidentBytes(*file_, 0, kSize).value_or(kSize);
  }
  EXPECT_GT(resident, 0u);
}

TEST_F(PageCacheTest, SelectsDirectIoForUncachedRangesOnly) {
  const bool dropped = DropPages();
  PageCachePolicy never(*file_, /*allow_direct=*/false);
  EXPECT_EQ(&never.Select(0, kSize), file_.get());
  PageCachePolicy policy(*file_, /*allow_direct=*/true);
  EXPECT_EQ(&policy.Select(0, 4096), file_.get()) << "short ranges are read through the cache";
  if (!dropped || !policy.PrefersDirect(0, kSize)) GTEST_SKIP() << "no local disk";
  const File& direct = policy.Select(0, kSize);
  if (&direct == file_.get()) GTEST_SKIP() << "no direct I/O";
  EXPECT_EQ(direct.mode(), ReadMode::kDirect);
  EXPECT_EQ(&policy.Select(kSize / 2, kSize / 2), &direct) << "opened once";
  std::vector<uint8_t> bytes(kSize);
  file_->ReadAt(0, bytes);
  EXPECT_EQ(&policy.Select(0, kSize), file_.get()) << "in the cache now";
}

// The path has another file now: its bytes must not be read in place of the open ones.
TEST_F(PageCacheTest, DoesNotReadAnotherFileWithDirectIo) {
  for (const bool exists : {true, false}) {
    std::filesystem::remove(path_);
    if (exists) dir_.Write("f", std::string(kSize, 'y'));
    if (!DropPages()) GTEST_SKIP() << "pages stay in memory, or are not reported";
    PageCachePolicy policy(*file_, /*allow_direct=*/true);
    if (!policy.PrefersDirect(0, kSize)) GTEST_SKIP() << "no local disk";
    EXPECT_EQ(&policy.Select(0, kSize), file_.get());
    EXPECT_FALSE(policy.PrefersDirect(0, kSize)) << "not tried again";
  }
}

// Writes a file whose pages are not in the page cache.
std::string WriteUncached(const testing::TempDir& dir, const std::string& name, char byte) {
  const std::string path = dir.Write(name, std::string(kSize, byte));
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  ::fsync(descriptor);
#ifdef POSIX_FADV_DONTNEED
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
#endif
  ::close(descriptor);
  return path;
}

TEST(PageCachePolicy, ReadsThePageCacheIfDirectIoIsNotAllowed) {
  const testing::TempDir dir;
  const auto file = File::Open(WriteUncached(dir, "f", 'a'));
  EXPECT_EQ(&PageCachePolicy(*file, false).Select(0, kSize), file.get());
}

TEST(PageCachePolicy, ReadsThePageCacheIfTheFileIsInIt) {
  const testing::TempDir dir;
  const auto file = File::Open(dir.Write("f", std::string(kSize, 'a')));
  EXPECT_EQ(&PageCachePolicy(*file, true).Select(0, kSize), file.get());
}

// The path leads to another file of the same size meanwhile.
TEST(PageCachePolicy, DirectReadsAreOfTheOpenFile) {
  const testing::TempDir dir;
  const auto file = File::Open(WriteUncached(dir, "f", 'a'));
  {
    PageCachePolicy policy(*file, true);
    if (policy.Select(0, kSize).mode() != ReadMode::kDirect) {
      GTEST_SKIP() << "the pages stay cached, or the file system has no direct I/O";
    }
  }
  std::filesystem::rename(WriteUncached(dir, "other", 'b'), dir / "f");
  PageCachePolicy policy(*file, true);
  const File& selected = policy.Select(0, kSize);
  EXPECT_EQ(&selected, file.get());
  std::vector<uint8_t> byte(1);
  selected.ReadAt(0, byte);
  EXPECT_EQ(byte[0], 'a');
}

}  // namespace
}  // namespace tensorbundle
