// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/page_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "temp_dir.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kSize = uint64_t{4} << 20;

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
