// SPDX-License-Identifier: Apache-2.0
// A regular file, open for reading.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// How bytes are fetched when they are copied.
enum class ReadMode {
  kBuffered,  // through the page cache
  kDirect,    // past it (O_DIRECT), through an aligned bounce buffer
};

// What tells one version of a file from another.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;  // moves with every write, even one that sets the other back
  bool operator==(const FileIdentity&) const = default;
};

// Owns the descriptor. Immutable and thread-safe. The size is the one found at open: a file that
// shrinks later makes reads throw, never return less.
class File {
 public:
  // Opens without ever blocking: a FIFO, socket, device or directory is refused.
  // Throws CheckpointNotFoundError when nothing is there; IOFailure when the system refuses or the
  // path is no regular file; UnsupportedError when the file system has no direct I/O and `mode`
  // asks for it.
  static std::shared_ptr<const File> Open(const std::string& path,
                                          ReadMode mode = ReadMode::kBuffered);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // The identity of whatever the path leads to, read without opening it. Nothing when nothing is
  // there. Throws IOFailure when the system refuses.
  static std::optional<FileIdentity> Identify(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t size() const { return identity_.size; }
  const FileIdentity& identity() const { return identity_; }
  int descriptor() const { return descriptor_; }
  ReadMode mode() const { return mode_; }

  // When the file was made, in nanoseconds since 1970; where the file system does not keep that,
  // when it was last changed.
  int64_t BornOrChanged() const;

  // Fills `out` with the bytes from `offset` on. Throws CorruptionError when the file ends before
  // that and IOFailure when the system fails the read.
  void ReadAt(uint64_t offset, MutableByteSpan out) const;

  // Throws CorruptionError when the file is now shorter than it was at open: a mapping of it must
  // not be touched beyond its end.
  void CheckNotShrunk() const;

 private:
  // Opens nothing: the object comes first, so that no descriptor is lost when memory runs out.
  File(std::string path, ReadMode mode) : path_(std::move(path)), mode_(mode) {}
  void ReadBuffered(uint64_t offset, MutableByteSpan out) const;
  void ReadDirect(uint64_t offset, MutableByteSpan out) const;

  std::string path_;
  int descriptor_ = -1;
  FileIdentity identity_;
  ReadMode mode_;
};

}  // namespace tensorbundle
