// SPDX-License-Identifier: Apache-2.0
// Files that are written at any position, and files that appear under their names only when they
// are complete.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// A descriptor that is open for writing. Does not own it. Throws: WriteAt() throws IOFailure with
// the system's error number.
class OutputFile {
 public:
  // `path` is for messages.
  OutputFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  const std::string& path() const { return path_; }

  // Threads: any number, in ranges that do not overlap.
  void WriteAt(uint64_t offset, ByteSpan bytes) const;

  // Starts to write dirty pages to the disk without waiting, so that a later fsync(2) takes less
  // time.
  void StartWriteback() const;

 protected:
  std::string path_;
  int descriptor_ = -1;
};

// A new file, written under a temporary name in the same directory: its name, ".tempstate", a
// number and "-tb". TensorFlow's writer names its files in the same way, without the end. The
// destructor removes the file, under whichever name it has, unless Keep() was called. It does
// nothing in a child of fork(2): the file is the parent's. Throws: every function throws IOFailure
// with the system's error number.
class AtomicFile : public OutputFile {
 public:
  // Creates the temporary file; nothing at `path`. `number` is part of the temporary name.
  static std::unique_ptr<AtomicFile> Create(const std::string& path, uint64_t number);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Returns a number that no other temporary file is likely to have.
  static uint64_t RandomNumber();

  // Returns the number in the temporary name of the file `name`, or nothing for other names.
  static std::optional<uint64_t> NumberOf(std::string_view temporary, std::string_view name);

  const std::string& temporary() const { return temporary_; }

  // Sets the size. Where the file system supports it, allocates the space now, so that a full disk
  // is reported before anything is written.
  void Resize(uint64_t size);

  // Calls fsync(2) and closes the file. Does nothing at a second call.
  void Finish();

  // Renames the finished file to `path`, by default that of Create(), which becomes path(). Fails
  // with EEXIST if there is another file.
  void Publish() { PublishAs(path_); }
  void PublishAs(const std::string& path);

  // Renames the finished file to path(), in place of the file that is there.
  void Replace();

  // Makes the destructor leave the file in place.
  void Keep() { kept_ = true; }

 private:
  // Opens no file. Create() opens it later, so that a failed allocation leaks no descriptor.
  explicit AtomicFile(std::string path);

  bool CreateTemporary(uint64_t number);

  std::string temporary_;  // empty: there is no temporary file
  pid_t process_;
  bool published_ = false;
  bool kept_ = false;
};

// The directory of a new file. The destructor removes it if it was created here, is empty, and
// Keep() was not called. It does nothing in a child of fork(2).
class AtomicDirectory {
 public:
  // Creates the directory of the file `path` if it is missing. Its parent must exist. Throws
  // IOFailure.
  static std::unique_ptr<AtomicDirectory> For(const std::string& path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  // Calls fsync(2), which makes new names in it durable. Throws IOFailure.
  void Sync() const;
  void Keep() { kept_ = true; }

 private:
  explicit AtomicDirectory(std::string path);

  std::string path_;
  pid_t process_;
  bool kept_ = true;
};

}  // namespace tensorbundle
