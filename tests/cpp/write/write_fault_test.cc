// SPDX-License-Identifier: Apache-2.0
// Fault injection: one system call after another fails or kills the process. This executable
// replaces the functions that write; all other calls go to the kernel.
#include <gtest/gtest.h>

#ifdef __linux__

#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/write/align.h"

namespace {

enum class Mode { kPass, kFail, kKill, kRefuseFeatures, kStutter };

struct Script {
  Mode mode = Mode::kPass;
  int at = 0;     // the call that fails or kills, from 1 on
  int error = 0;  // what it fails with
  int calls = 0;
};
Script script;

// Counts a call. Returns whether it must fail, with errno set.
bool Fails() {
  ++script.calls;
  if (script.calls != script.at) return false;
  if (script.mode == Mode::kKill) ::kill(::getpid(), SIGKILL);
  errno = script.error;
  return script.mode == Mode::kFail;
}

bool Refuses() {
  errno = EOPNOTSUPP;
  return script.mode == Mode::kRefuseFeatures;
}

}  // namespace

extern "C" {

int link(const char* from, const char* to) noexcept {
  if (Fails() || Refuses()) return -1;
  return static_cast<int>(::syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int rename(const char* from, const char* to) noexcept {
  if (Fails()) return -1;
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int unlink(const char* path) noexcept {
  if (Fails()) return -1;
  return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (Fails()) return -1;
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

int fsync(int descriptor) {
  if (Fails()) return -1;
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

int fallocate64(int descriptor, int mode, off64_t offset, off64_t size) {
  if (Fails() || Refuses()) return -1;
  return static_cast<int>(::syscall(SYS_fallocate, descriptor, mode, offset, size));
}

ssize_t pwrite64(int descriptor, const void* bytes, size_t size, off64_t offset) {
  if (Fails()) return -1;
  if (script.mode == Mode::kStutter) {
    errno = EINTR;
    if (script.calls % 2 == 0) return -1;
    size = std::min(size, size / 2 + 1);
  }
  return ::syscall(SYS_pwrite64, descriptor, bytes, size, offset);
}

}  // extern "C"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::TempDir;

using Files = std::map<std::string, std::string>;  // contents by name

Files FilesIn(const std::string& directory) {
  Files files;
  if (!std::filesystem::exists(directory)) return files;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files[entry.path().filename().string()] = {std::istreambuf_iterator<char>(file), {}};
  }
  return files;
}

class AlignFault : public ::testing::Test {
 protected:
  AlignFault() {
    BundleBuilder builder(2);
    builder.Add("a", DataType::kUint8, {3}, "abc");
    builder.Add("b", DataType::kUint8, {600'000}, std::string(600'000, 'b'));
    builder.Add("c", DataType::kUint8, {1}, "c", 1);
    builder.Write(dir_ / "source");
    Run();
    whole_ = FilesIn(dir_ / "new");
    std::filesystem::remove_all(dir_ / "new");
  }
  ~AlignFault() override { script = {}; }

  void Run() const {
    AlignPlan(dir_ / "source", 4096).Write(dir_ / "new/c", 1, [](uint64_t) {});
  }

  TempDir dir_;
  Files whole_;
};

TEST_F(AlignFault, FailedCallsAreReportedAndLeaveNoFile) {
  for (const int error : {ENOSPC, EIO, EDQUOT, EROFS}) {
    int at = 0;
    for (bool done = false; !done;) {
      script = {Mode::kFail, ++at, error};
      try {
        Run();
        done = true;
      } catch (const IOFailure& failure) {
        EXPECT_EQ(failure.error_number(), error) << at;
        EXPECT_NE(failure.path().find(dir_ / "new"), std::string::npos);
        EXPECT_FALSE(std::filesystem::exists(dir_ / "new")) << at << ": " << failure.what();
      }
    }
    EXPECT_GT(at, 15);
    EXPECT_EQ(FilesIn(dir_ / "new"), whole_);
    std::filesystem::remove_all(dir_ / "new");
  }
}

TEST_F(AlignFault, KilledProcessLeavesNoIndexOrACompleteCheckpoint) {
  int without = 0;
  int whole = 0;
  for (int at = 1;; ++at) {
    const pid_t child = ::fork();
    if (child == 0) {
      script = {Mode::kKill, at};
      Run();
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    Files files = FilesIn(dir_ / "new");
    if (WIFEXITED(status)) {
      EXPECT_EQ(files, whole_);
      break;
    }
    if (files.count("c.index") == 0) {
      ++without;
    } else {
      ++whole;
      for (const auto& [name, bytes] : whole_) EXPECT_EQ(files[name], bytes) << at << " " << name;
    }
    std::filesystem::remove_all(dir_ / "new");
  }
  EXPECT_GT(without, 10);
  EXPECT_GT(whole, 0);  // killed before the last fsync
}

TEST_F(AlignFault, FileSystemsWithoutLinksOrFallocate) {
  script = {Mode::kRefuseFeatures};
  Run();
  EXPECT_EQ(FilesIn(dir_ / "new"), whole_);
  const std::string index = dir_ / "new/c.index";
  try {
    Run();
    FAIL() << "replaced a checkpoint";
  } catch (const IOFailure& failure) {
    EXPECT_EQ(failure.error_number(), EEXIST);
  }
}

TEST_F(AlignFault, ShortAndInterruptedWrites) {
  script = {Mode::kStutter};
  Run();
  EXPECT_EQ(FilesIn(dir_ / "new"), whole_);
}

// Replaces the checkpoint `c`, whose tensor "x" has the bytes "old", by one with the bytes "new".
class ReplaceFault : public ::testing::Test {
 protected:
  ReplaceFault() {
    Save("old", 1);
    old_ = FilesIn(dir_ / "");
  }
  ~ReplaceFault() override { script = {}; }

  void Save(const std::string& bytes, int32_t num_shards) const {
    BundleWriter writer(dir_ / "c", {.num_shards = num_shards, .overwrite = true});
    for (int32_t shard = 0; shard < num_shards; ++shard) writer.CreateDataFile(shard);
    const SliceInfo info{"x", DataType::kUint8, {3}, {}};
    writer.Reserve(info);
    const Placement place = writer.Allocate(3);
    writer.Record(info, place, crc32c::Mask(writer.Write(place, 0, AsBytes(bytes))));
    writer.Publish();
  }

  // Returns the bytes of "x". Throws if they are not those of the index.
  std::string Load() const {
    const auto checkpoint = Checkpoint::OpenBundle(dir_ / "c", IoMode::kPread);
    const Catalog& catalog = checkpoint->catalog();
    const StoredSlice& slice = catalog.Slices(catalog.tensors.at(0))[0];
    std::string bytes(slice.size, ' ');
    checkpoint->files()
        .Get(slice.file)
        .ReadAt(slice.offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
    EXPECT_EQ(slice.masked_checksum, crc32c::Mask(crc32c::Value(bytes.data(), bytes.size())));
    return bytes;
  }

  TempDir dir_;
  Files old_;
};

TEST_F(ReplaceFault, KilledProcessLeavesTheOldOrTheNewCheckpoint) {
  for (const int32_t num_shards : {1, 2}) {
    int old_ones = 0;
    int new_ones = 0;
    bool finished = false;
    for (int at = 1; !finished; ++at) {
      const pid_t child = ::fork();
      if (child == 0) {
        script = {Mode::kKill, at};
        Save("new", num_shards);
        ::_exit(0);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      finished = WIFEXITED(status);
      const std::string bytes = Load();
      EXPECT_TRUE(bytes == "old" || bytes == "new") << at;
      (bytes == "old" ? old_ones : new_ones) += 1;
      Save("old", 1);  // removes what the killed process left
      EXPECT_EQ(FilesIn(dir_ / ""), old_) << at;
    }
    EXPECT_GT(old_ones, 5);
    EXPECT_GT(new_ones, 2);
  }
}

TEST_F(ReplaceFault, FailedCallLeavesTheOldOrTheNewCheckpoint) {
  for (const int error : {ENOSPC, EIO}) {
    bool finished = false;
    int failures = 0;
    for (int at = 1; !finished; ++at) {
      script = {Mode::kFail, at, error};
      try {
        Save("new", 1);
        finished = script.calls < at;
        script = {};
        EXPECT_EQ(Load(), "new") << at;
      } catch (const IOFailure& failure) {
        script = {};
        EXPECT_EQ(failure.error_number(), error) << at;
        const std::string bytes = Load();
        EXPECT_TRUE(bytes == "old" || bytes == "new") << at;
        ++failures;
      }
      Save("old", 1);
      EXPECT_EQ(FilesIn(dir_ / ""), old_) << at;
    }
    EXPECT_GT(failures, 5);
  }
}

TEST_F(ReplaceFault, FileSystemsWithoutLinks) {
  script = {Mode::kRefuseFeatures};
  Save("new", 1);
  EXPECT_EQ(Load(), "new");
  script = {};
  Save("old", 1);
  EXPECT_EQ(Load(), "old");
}

TEST_F(ReplaceFault, NewWriterRemovesWhatAKilledFirstWriterLeft) {
  std::filesystem::remove_all(dir_ / "c.index");
  std::filesystem::remove_all(dir_ / "c.data-00000-of-00001");
  for (int at = 1;; ++at) {
    const pid_t child = ::fork();
    const auto save = [&] {
      BundleWriter writer(dir_ / "c", {});
      writer.CreateDataFile(0);
      writer.Publish();
    };
    if (child == 0) {
      script = {Mode::kKill, at};
      save();
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) break;
    if (!std::filesystem::exists(dir_ / "c.index")) save();  // without overwrite
    Save("new", 1);
    EXPECT_EQ(FilesIn(dir_ / "").size(), 2U) << at;
    std::filesystem::remove_all(dir_ / "c.index");
    std::filesystem::remove_all(dir_ / "c.data-00000-of-00001");
  }
}

}  // namespace
}  // namespace tensorbundle

#endif
