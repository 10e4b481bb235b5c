// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/fork_lock.h"
#include "tensorbundle/base/interrupt.h"
#include "tensorbundle/base/parallel.h"

#ifdef __linux__
#include <sys/syscall.h>
#endif

namespace tensorbundle {
namespace {

static_assert(sizeof(off_t) == 8, "build with 64-bit file offsets");

// CheckInterrupt() is called after so many bytes.
constexpr uint64_t kMaxReadSize = uint64_t{16} << 20;
constexpr uint64_t kDirectBufferSize = uint64_t{1} << 20;

// kRequests: after a small read, another one that begins at most kMaxStep bytes later makes the
// file read ahead. kMaxStep is the gap between aligned tensors.
constexpr uint64_t kSmallRead = uint64_t{64} << 10;
constexpr uint64_t kMaxStep = 4096;
constexpr uint64_t kReadAhead = uint64_t{1} << 20;

#ifdef O_DIRECT
constexpr int kDirectFlag = O_DIRECT;
#else
constexpr int kDirectFlag = 0;
#endif

const char* KindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

#ifdef STATX_BTIME
// The kernel's statx(2). A build for a glibc before 2.28 has no function for it.
int Statx(int descriptor, struct statx* status) {
#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 28)
  return static_cast<int>(::syscall(SYS_statx, descriptor, "", AT_EMPTY_PATH, STATX_BTIME, status));
#else
  return ::statx(descriptor, "", AT_EMPTY_PATH, STATX_BTIME, status);
#endif
}
#endif

int64_t Nanoseconds(const struct timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

FileIdentity IdentityOf(const struct stat& status) {
#ifdef __APPLE__
  const struct timespec& modified = status.st_mtimespec;
  const struct timespec& changed = status.st_ctimespec;
#else
  const struct timespec& modified = status.st_mtim;
  const struct timespec& changed = status.st_ctim;
#endif
  return {static_cast<uint64_t>(status.st_dev), static_cast<uint64_t>(status.st_ino),
          static_cast<uint64_t>(status.st_size), Nanoseconds(modified), Nanoseconds(changed)};
}

// Whether a time differs from the present by at most a tick. Both are rounded: hence two ticks. The
// clock of a file server may be ahead.
bool IsJustNow(int64_t time_ns) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto age = now - std::chrono::nanoseconds(time_ns);
  return std::chrono::abs(age) <= 2 * kClockTick;
}

[[noreturn]] void ThrowOpenFailure(const std::string& path, int error, ReadMode mode) {
  if (error == ENOENT || error == ENOTDIR) {
    throw CheckpointNotFoundError("no such file: " + path, path);
  }
  if (error == EINVAL && mode == ReadMode::kDirect) {
    throw UnsupportedError("the file system of " + path +
                           " has no direct I/O; open the checkpoint with io=\"auto\"");
  }
  throw IOFailure("cannot open " + path, path, error);
}

[[noreturn]] void ThrowEnded(const std::string& path, uint64_t offset, uint64_t wanted,
                             uint64_t got) {
  throw TruncatedError(path + " ends early: " + std::to_string(wanted) +
                       " bytes were expected at offset " + std::to_string(offset) + ", " +
                       std::to_string(got) + " are there; was it truncated while in use?");
}

// Reads until `size` bytes have been read or the file ends. Returns the number of bytes read. A
// read that stops inside a unit of `alignment` has reached the end; direct I/O cannot continue from
// there.
uint64_t ReadUpTo(int descriptor, const std::string& path, uint64_t offset, uint8_t* out,
                  uint64_t size, uint64_t alignment) {
  uint64_t done = 0;
  while (done < size) {
    const size_t wanted = static_cast<size_t>(std::min(size - done, kMaxReadSize));
    const ssize_t got = ::pread(descriptor, out + done, wanted, static_cast<off_t>(offset + done));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw IOFailure("cannot read " + path + " at offset " + std::to_string(offset + done), path,
                      errno);
    }
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
    if (done % alignment != 0) break;
    if (done < size && wanted == kMaxReadSize) CheckInterrupt();
  }
  return done;
}

struct FreeAligned {
  void operator()(uint8_t* p) const { std::free(p); }
};
using AlignedBuffer = std::unique_ptr<uint8_t, FreeAligned>;

AlignedBuffer NewAlignedBuffer() {
  auto* p = static_cast<uint8_t*>(std::aligned_alloc(kDirectAlignment, kDirectBufferSize));
  if (p == nullptr) throw std::bad_alloc();
  return AlignedBuffer(p);
}

}  // namespace

std::shared_ptr<const File> File::Open(const std::string& path, ReadMode mode) {
  // O_NONBLOCK: opening a FIFO without a writer would block forever.
  const int flags =
      O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | (mode == ReadMode::kDirect ? kDirectFlag : 0);
  const std::shared_ptr<File> file(new File(path, mode));
  file->descriptor_ = Uninterrupted([&] { return ::open(path.c_str(), flags); });
  if (file->descriptor_ < 0) ThrowOpenFailure(path, errno, mode);

  struct stat status{};
  if (::fstat(file->descriptor_, &status) != 0) ThrowSystemError("stat", path);
  file->identity_ = IdentityOf(status);
  file->was_just_written_ = IsJustNow(file->identity_.modified_ns);
  if (!S_ISREG(status.st_mode)) {
    throw IOFailure(path + " is " + KindOf(status.st_mode) + ", not a regular file", path,
                    S_ISDIR(status.st_mode) ? EISDIR : EINVAL);
  }
  return file;
}

std::shared_ptr<const File> File::OfRanges(std::string path, uint64_t size,
                                           std::unique_ptr<const RangeReader> reader) {
  const std::shared_ptr<File> file(new File(std::move(path), ReadMode::kRanges));
  file->identity_.size = size;
  file->reader_ = std::move(reader);
  return file;
}

std::shared_ptr<const File> File::OfRequests(std::string path, uint64_t size,
                                             std::unique_ptr<const RequestReader> reader) {
  const std::shared_ptr<File> file(new File(std::move(path), ReadMode::kRequests));
  file->identity_.size = size;
  file->request_reader_ = std::move(reader);
  return file;
}

std::optional<FileIdentity> File::Identify(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0) return IdentityOf(status);
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  throw IOFailure("cannot stat " + path, path, errno);
}

bool File::WasRewritten() const {
  if (descriptor_ < 0) return false;
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) ThrowSystemError("stat", path_);
  const FileIdentity now = IdentityOf(status);
  return now.size != identity_.size || now.modified_ns != identity_.modified_ns;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

int64_t File::BornOrChanged() const {
#if defined(__APPLE__)
  struct stat status{};
  if (::fstat(descriptor_, &status) == 0) return Nanoseconds(status.st_birthtimespec);
#elif defined(STATX_BTIME)
  struct statx status{};
  if (Statx(descriptor_, &status) == 0 && (status.stx_mask & STATX_BTIME) != 0) {
    return status.stx_btime.tv_sec * 1'000'000'000 + status.stx_btime.tv_nsec;
  }
#endif
  return identity_.changed_ns;
}

void File::ReadAt(uint64_t offset, MutableByteSpan out) const {
  switch (mode_) {
    case ReadMode::kBuffered:
      return ReadBuffered(offset, out);
    case ReadMode::kDirect:
      return ReadDirect(offset, out);
    case ReadMode::kRanges:
      return ReadRanges(offset, out);
    case ReadMode::kRequests:
      return ReadByRequests(offset, out);
  }
}

void File::ReadBuffered(uint64_t offset, MutableByteSpan out) const {
  const uint64_t got = ReadUpTo(descriptor_, path_, offset, out.data(), out.size(), 1);
  if (got < out.size()) ThrowEnded(path_, offset, out.size(), got);
}

MutableByteSpan File::ReadBlocks(uint64_t offset, uint64_t size, uint8_t* buffer) const {
  const uint64_t skip = offset % kDirectAlignment;
  const uint64_t blocks = (skip + size + kDirectAlignment - 1) / kDirectAlignment;
  const uint64_t got = ReadUpTo(descriptor_, path_, offset - skip, buffer,
                                blocks * kDirectAlignment, kDirectAlignment);
  if (got < skip + size) ThrowEnded(path_, offset, size, got > skip ? got - skip : 0);
  return {buffer + skip, size};
}

void File::ReadDirect(uint64_t offset, MutableByteSpan out) const {
  const AlignedBuffer buffer = NewAlignedBuffer();
  for (uint64_t done = 0; done < out.size();) {
    const uint64_t skip = (offset + done) % kDirectAlignment;
    const uint64_t wanted = std::min(out.size() - done, kDirectBufferSize - skip);
    std::memcpy(out.data() + done, ReadBlocks(offset + done, wanted, buffer.get()).data(), wanted);
    done += wanted;
  }
}

void File::RequireInside(uint64_t offset, uint64_t size) const {
  if (RangeFits(offset, size, this->size())) return;
  ThrowEnded(path_, offset, size, offset < this->size() ? this->size() - offset : 0);
}

void File::ReadRanges(uint64_t offset, MutableByteSpan out) const {
  RequireInside(offset, out.size());
  for (uint64_t done = 0; done < out.size();) {
    const uint64_t wanted = std::min(out.size() - done, kMaxRangeSize);
    const ByteSpan bytes = Borrow(offset + done, wanted);
    std::memcpy(out.data() + done, bytes.data(), wanted);
    done += wanted;
  }
}

// Answers a small read from the last block, or reads a block ahead if small reads follow one
// another. Returns false if neither.
bool File::ReadFromBlock(uint64_t offset, MutableByteSpan out) const {
  std::shared_ptr<const Block> block;
  bool is_next = false;
  {
    const ForkLock lock;
    is_next = offset >= next_ && offset - next_ <= kMaxStep;
    next_ = offset + out.size();
    block = block_;
  }
  const auto contains = [&](const Block& b) {
    return offset >= b.begin && RangeFits(offset - b.begin, out.size(), b.bytes.size());
  };
  if (block == nullptr || !contains(*block)) {
    if (!is_next) return false;
    auto ahead = std::make_shared<Block>();
    ahead->begin = offset;
    ahead->bytes.resize(std::min(kReadAhead, size() - offset));
    request_reader_->Read(offset, ahead->bytes);
    block = ahead;
    std::shared_ptr<const Block> last = std::move(ahead);  // freed after the lock is released
    const ForkLock lock;
    last.swap(block_);
  }
  std::memcpy(out.data(), block->bytes.data() + (offset - block->begin), out.size());
  return true;
}

void File::ReadByRequests(uint64_t offset, MutableByteSpan out) const {
  RequireInside(offset, out.size());
  if (out.empty() || (out.size() <= kSmallRead && ReadFromBlock(offset, out))) return;
  const uint64_t count = (out.size() + kMaxRequestSize - 1) / kMaxRequestSize;
  ParallelFor(count, kMaxRequests, [&](size_t i) {
    const uint64_t begin = i * kMaxRequestSize;
    const uint64_t size = std::min(kMaxRequestSize, out.size() - begin);
    request_reader_->Read(offset + begin, out.subspan(begin, size));
  });
}

ByteSpan File::Borrow(uint64_t offset, uint64_t size) const {
  RequireInside(offset, size);
  const ByteSpan bytes = reader_->Read(offset, size);
  if (bytes.size() > size) {
    throw CorruptionError(path_ + ": a read of " + std::to_string(size) + " bytes at offset " +
                          std::to_string(offset) + " returned " + std::to_string(bytes.size()));
  }
  if (bytes.size() < size) ThrowEnded(path_, offset, size, bytes.size());
  return bytes;
}

void File::CheckNotShrunk() const {
  // Takes a third of the time of fstat(). Nothing uses the position of the descriptor.
  const off_t end = ::lseek(descriptor_, 0, SEEK_END);
  if (end < 0) throw IOFailure("cannot find the end of " + path_, path_, errno);
  const auto now = static_cast<uint64_t>(end);
  if (now < identity_.size) {
    throw CorruptionError(path_ + " has shrunk from " + std::to_string(identity_.size) + " to " +
                          std::to_string(now) + " bytes since it was opened");
  }
}

}  // namespace tensorbundle
