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
#include <vector>

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
std::vector<std::string>* events = nullptr;  // what was synced, named and removed, in order

// Returns the name of a file, a temporary one without its number.
std::string NameOf(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  const std::string temporary = ".tempstate";
  const size_t at = name.find(temporary);
  return at == std::string::npos ? name : name.substr(0, at + temporary.size());
}

void Note(const std::string& verb, const std::string& path) {
  if (events != nullptr) events->push_back(verb + " " + NameOf(path));
}

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
  Note("name", to);
  return static_cast<int>(::syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int rename(const char* from, const char* to) noexcept {
  if (Fails()) return -1;
  Note("name", to);
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int unlink(const char* path) noexcept {
  if (Fails()) return -1;
  Note("remove", path);
  return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (Fails()) return -1;
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

int fsync(int descriptor) {
  if (Fails()) return -1;
  if (events != nullptr) {
    const std::string number = std::to_string(descriptor);
    Note("sync", std::filesystem::read_symlink("/proc/self/fd/" + number).string());
  }
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

// Records the system calls of an object's lifetime.
class Recorder {
 public:
  Recorder() { events = &events_; }
  ~Recorder() { events = nullptr; }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Returns the place of an event, the first from `from` on.
  size_t Find(const std::string& event, size_t from = 0) const {
    const auto found =
        std::find(events_.begin() + static_cast<std::ptrdiff_t>(from), events_.end(), event);
    EXPECT_NE(found, events_.end()) << "no event: " << event;
    return static_cast<size_t>(found - events_.begin());
  }

 private:
  std::vector<std::string> events_;
};

TEST_F(AlignFault, EverythingIsOnTheDiskBeforeItsName) {
  const Recorder recorder;
  Run();
  const size_t index = recorder.Find("name c.index");
  EXPECT_LT(recorder.Find("sync c.index.tempstate"), index);
  size_t last = 0;
  for (const char* data : {"c.data-00000-of-00002", "c.data-00001-of-00002"}) {
    const size_t named = recorder.Find(std::string("name ") + data);
    EXPECT_LT(recorder.Find(std::string("sync ") + data + ".tempstate"), named);
    last = std::max(last, named);
  }
  // The names of the data, then that of the index, then all of it.
  EXPECT_LT(recorder.Find("sync new", last), index);
  recorder.Find("sync new", index);
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

TEST_F(ReplaceFault, EverythingIsOnTheDiskBeforeItsName) {
  const Recorder recorder;
  Save("new", 1);
  const std::string directory =
      "sync " + std::filesystem::path(dir_ / "c").parent_path().filename().string();
  const size_t index = recorder.Find("name c.index");
  const size_t data = recorder.Find("name c.data-00000-of-00002");  // beside the old file
  EXPECT_LT(recorder.Find("sync c.data-00000-of-00001.tempstate"), data);
  EXPECT_LT(recorder.Find("sync c.index.tempstate"), index);
  EXPECT_LT(data, index);
  EXPECT_LT(recorder.Find(directory, data), index);
  // Before the old data goes, the new index is on the disk.
  EXPECT_LT(recorder.Find(directory, index), recorder.Find("remove c.data-00000-of-00001"));
  // The usual name, and another index with it.
  const size_t usual = recorder.Find("name c.data-00000-of-00001");
  const size_t second = recorder.Find("name c.index", index + 1);
  EXPECT_LT(recorder.Find(directory, usual), second);
  EXPECT_LT(recorder.Find("sync c.index.tempstate", usual), second);
  EXPECT_LT(recorder.Find(directory, second), recorder.Find("remove c.data-00000-of-00002"));
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
