// SPDX-License-Identifier: Apache-2.0
// A file, open for reading: a regular file of the system, or one that a RangeReader or a
// RequestReader serves.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Repeats a system call while signals interrupt it. Returns its result.
template <typename Call>
auto Uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

// How ReadAt() reads.
enum class ReadMode {
  kBuffered,  // through the page cache
  kDirect,    // with O_DIRECT, through an aligned bounce buffer
  kRanges,    // through a RangeReader
  kRequests,  // through a RequestReader
};

// Reads a file that the system cannot open, such as one in an object store.
// Lifetime: the destructor closes the file.
class RangeReader {
 public:
  virtual ~RangeReader() = default;
  // Returns the bytes that start at `offset`: fewer than `size` only if the file ends there.
  // Lifetime: until the next call.
  // Throws: any exception; File::ReadAt() passes it on.
  virtual ByteSpan Read(uint64_t offset, uint64_t size) const = 0;
};

// Bytes that one call of RangeReader::Read() reads at most: enough to make the cost of the call
// negligible, few enough for the copy to stay in the cache.
inline constexpr uint64_t kMaxRangeSize = uint64_t{1} << 20;

// Reads a file by requests to a server. A request takes milliseconds, whatever its size: callers
// make few, and several at a time. Threads: thread-safe.
// Lifetime: the destructor closes the file.
class RequestReader {
 public:
  virtual ~RequestReader() = default;
  // Fills `out` with the bytes that start at `offset`, by one request.
  // Throws: any exception; File::ReadAt() passes it on.
  virtual void Read(uint64_t offset, MutableByteSpan out) const = 0;
};

// Bytes that one request reads at most: they take longer than the request itself, and those of
// all threads still fit into memory.
inline constexpr uint64_t kMaxRequestSize = uint64_t{4} << 20;

// Bytes that are read in vain rather than by another request.
inline constexpr uint64_t kMaxRequestGap = uint64_t{256} << 10;

// Requests that are made at a time for one long read.
inline constexpr int kMaxRequests = 16;

// Direct I/O reads blocks of this size to memory of this alignment; enough for every device known.
inline constexpr uint64_t kDirectAlignment = 4096;

// A tick of the system's clock takes 10 ms at most.
inline constexpr std::chrono::milliseconds kClockTick(10);

// Identifies one version of a file.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;  // changes with every write, even if modified_ns is set back
  bool operator==(const FileIdentity&) const = default;
};

// Owns the descriptor or the reader. The size is that at open: if the file shrinks later, reads
// throw.
// Threads: immutable and thread-safe, unless a RangeReader is not.
class File {
 public:
  // Opens a regular file of the system. Never blocks. Requires: `mode` is kBuffered or kDirect.
  // Throws: CheckpointNotFoundError if there is no file; IOFailure if the system call fails or the
  // path is a FIFO, socket, device or directory; UnsupportedError if `mode` is kDirect and the file
  // system has no direct I/O.
  static std::shared_ptr<const File> Open(const std::string& path,
                                          ReadMode mode = ReadMode::kBuffered);

  // A file of `size` bytes that `reader` reads. Its mode is kRanges. It has no descriptor, so it
  // cannot be mapped, and no identity but its size: nothing read from it may be cached.
  static std::shared_ptr<const File> OfRanges(std::string path, uint64_t size,
                                              std::unique_ptr<const RangeReader> reader);

  // A file of `size` bytes that `reader` reads. Its mode is kRequests. Otherwise as above.
  static std::shared_ptr<const File> OfRequests(std::string path, uint64_t size,
                                                std::unique_ptr<const RequestReader> reader);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Returns the identity of the file at a path without opening it, or nothing if there is no file.
  // Throws: IOFailure if the system call fails.
  static std::optional<FileIdentity> Identify(const std::string& path);

  const std::string& path() const { return path_; }
  uint64_t size() const { return identity_.size; }
  const FileIdentity& identity() const { return identity_; }
  int descriptor() const { return descriptor_; }  // -1 if a reader serves the file
  ReadMode mode() const { return mode_; }

  // Whether the last write was so recent at open that the next one may leave the identity the same:
  // many file systems round times down to a tick of the system's clock.
  bool WasJustWritten() const { return was_just_written_; }

  // Whether the file has been written to since it was opened, as far as its size and its time of
  // modification tell. Renaming, linking and deleting it do not count.
  // Returns false if a reader serves the file. Throws: IOFailure if the system call fails.
  bool WasRewritten() const;

  // The same; also true if WasJustWritten().
  bool MayHaveBeenRewritten() const { return was_just_written_ || WasRewritten(); }

  // Returns the time of creation in nanoseconds since 1970, or the time of the last change if the
  // file system does not record the creation.
  int64_t BornOrChanged() const;

  // Fills `out` with the bytes that start at `offset`.
  // Throws: TruncatedError if the file ends too early; IOFailure if the system call fails; what the
  // reader throws.
  void ReadAt(uint64_t offset, MutableByteSpan out) const;

  // Returns the bytes that start at `offset`, without the copy that ReadAt() makes.
  // Requires: the mode is kRanges; `size` is at most kMaxRangeSize. Lifetime: until the next read.
  // Throws: as ReadAt(); CorruptionError if the RangeReader returns too many bytes.
  ByteSpan Borrow(uint64_t offset, uint64_t size) const;

  // Reads the blocks that contain `size` bytes at `offset`, in any mode, and returns these bytes.
  // Saves the copy that ReadAt() makes if the file is in direct mode.
  // Requires: the file has a descriptor; the buffer is aligned to kDirectAlignment, and has room
  // for `size` bytes and two blocks. Throws: as ReadAt().
  MutableByteSpan ReadBlocks(uint64_t offset, uint64_t size, uint8_t* buffer) const;

  // Throws: CorruptionError if the file is shorter than at open, because accessing a mapping beyond
  // the end of its file kills the process. Requires: the file has a descriptor.
  void CheckNotShrunk() const;

 private:
  // Opens no file. Open() does that later, so that a failed allocation leaks no descriptor.
  File(std::string path, ReadMode mode) : path_(std::move(path)), mode_(mode) {}
  void ReadBuffered(uint64_t offset, MutableByteSpan out) const;
  void ReadDirect(uint64_t offset, MutableByteSpan out) const;
  void ReadRanges(uint64_t offset, MutableByteSpan out) const;
  void ReadByRequests(uint64_t offset, MutableByteSpan out) const;
  bool ReadFromBlock(uint64_t offset, MutableByteSpan out) const;
  void RequireInside(uint64_t offset, uint64_t size) const;

  std::string path_;
  int descriptor_ = -1;
  FileIdentity identity_;
  bool was_just_written_ = false;
  ReadMode mode_;
  std::unique_ptr<const RangeReader> reader_;
  std::unique_ptr<const RequestReader> request_reader_;

  // kRequests: what was read ahead last, because small reads followed one another.
  struct Block {
    uint64_t begin = 0;
    std::vector<uint8_t> bytes;
  };
  // Guarded by ForkLock:
  mutable std::shared_ptr<const Block> block_;
  mutable uint64_t next_ = UINT64_MAX;  // the end of the last read
};

// Opens the file at a path in another file system. Empty: File::Open().
using FileOpener =
    std::function<std::shared_ptr<const File>(const std::string& path, ReadMode mode)>;

}  // namespace tensorbundle
