// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/page_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"

#ifdef __linux__
#include <sys/syscall.h>
#include <sys/vfs.h>
#endif

namespace tensorbundle {
namespace {

#ifdef __linux__

// cachestat(2), since Linux 6.5. Its number is the same on every architecture. The structures are
// declared here because the system's headers may be older than its kernel.
constexpr long kCachestat = 451;
struct CachestatRange {
  uint64_t offset;
  uint64_t length;
};
struct Cachestat {
  uint64_t cached;
  uint64_t dirty;
  uint64_t writeback;
  uint64_t evicted;
  uint64_t recently_evicted;
};

std::optional<uint64_t> PagesByCachestat(const File& file, uint64_t offset, uint64_t size) {
  CachestatRange range{offset, size};
  Cachestat result{};
  if (::syscall(kCachestat, file.descriptor(), &range, &result, 0) != 0) return std::nullopt;
  return result.cached;
}

#ifdef RWF_NOWAIT
// The kernel's preadv2(2). A build for a glibc before 2.26 has no function for it.
ssize_t ReadWithoutWaiting(const File& file, uint64_t offset, const struct iovec& out) {
#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 26)
  // The kernel takes the two halves of the offset, and ignores the second one if long has 64 bits.
  return ::syscall(SYS_preadv2, file.descriptor(), &out, 1, static_cast<long>(offset),
                   static_cast<long>(offset >> 32), RWF_NOWAIT);
#else
  return ::preadv2(file.descriptor(), &out, 1, static_cast<off_t>(offset), RWF_NOWAIT);
#endif
}
#endif

// mincore() reports every page as resident for files that the caller may not write to.
bool IsMincoreReliable(const File& file) {
  struct stat status{};
  if (::fstat(file.descriptor(), &status) != 0) return false;
  return ::geteuid() == 0 || status.st_uid == ::geteuid() ||
         ::access(file.path().c_str(), W_OK) == 0;
}

// Uses a temporary mapping, which is never accessed.
std::optional<uint64_t> PagesByMincore(const File& file, uint64_t offset, uint64_t size,
                                       uint64_t page) {
  if (!IsMincoreReliable(file)) return std::nullopt;
  std::vector<unsigned char> resident((size + page - 1) / page);
  void* base =
      ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), static_cast<off_t>(offset));
  if (base == MAP_FAILED) return std::nullopt;
  const int failed = ::mincore(base, size, resident.data());
  ::munmap(base, size);
  if (failed != 0) return std::nullopt;
  return static_cast<uint64_t>(std::count_if(resident.begin(), resident.end(),
                                             [](unsigned char flags) { return (flags & 1) != 0; }));
}

#endif

// Shorter ranges are not worth a request to the device.
constexpr uint64_t kMinDirectRange = uint64_t{1} << 20;

// Recognizes file systems on local disks by the magic numbers of statfs(2). Network file systems
// rely on the cache, and those in memory do no I/O.
bool IsLocalDisk(const File& file) {
#ifdef __linux__
  struct statfs status{};
  if (::fstatfs(file.descriptor(), &status) != 0) return false;
  switch (static_cast<uint32_t>(status.f_type)) {
    case 0xEF53:      // ext2 to ext4
    case 0x58465342:  // XFS
    case 0x9123683E:  // Btrfs
    case 0xF2F52010:  // F2FS
    case 0x794C7630:  // overlayfs, as in containers
      return true;
    default:
      return false;
  }
#else
  (void)file;
  return false;
#endif
}

}  // namespace

std::optional<uint64_t> ResidentBytes(const File& file, uint64_t offset, uint64_t size) {
#ifdef __linux__
  if (size == 0) return 0;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t start = offset / page * page;
  std::optional<uint64_t> pages = PagesByCachestat(file, start, offset + size - start);
  if (!pages) pages = PagesByMincore(file, start, offset + size - start, page);
  if (!pages) return std::nullopt;
  return *pages * page;
#else
  (void)file, (void)offset, (void)size;
  return std::nullopt;
#endif
}

bool IsMissingFromCache(const File& file, uint64_t offset) {
#if defined(__linux__) && defined(RWF_NOWAIT)
  char byte = 0;
  const struct iovec one{&byte, sizeof(byte)};
  return ReadWithoutWaiting(file, offset, one) < 0 && errno == EAGAIN;
#else
  (void)file, (void)offset;
  return false;
#endif
}

void StartReading(const File& file, uint64_t offset, uint64_t size) {
#ifdef POSIX_FADV_WILLNEED
  // Linux ignores what exceeds the larger of the read-ahead and the request size of the device.
  constexpr uint64_t kMaxAdvice = uint64_t{1} << 20;
  for (uint64_t done = 0; done < size; done += kMaxAdvice) {
    ::posix_fadvise(file.descriptor(), static_cast<off_t>(offset + done),
                    static_cast<off_t>(std::min(kMaxAdvice, size - done)), POSIX_FADV_WILLNEED);
  }
#else
  (void)file, (void)offset, (void)size;
#endif
}

bool PageCachePolicy::PrefersDirect(uint64_t offset, uint64_t size) const {
  if (!allow_direct_ || size < kMinDirectRange || !IsLocalDisk(file_)) return false;
  const std::optional<uint64_t> resident = ResidentBytes(file_, offset, size);
  return resident && *resident < size / 2;
}

const File& PageCachePolicy::Select(uint64_t offset, uint64_t size) {
  if (!PrefersDirect(offset, size)) return file_;
  const File* direct = DirectFile();
  return direct == nullptr ? file_ : *direct;
}

const File* PageCachePolicy::DirectFile() {
  if (direct_ != nullptr) return direct_.get();
  try {
    std::shared_ptr<const File> direct = File::Open(file_.path(), ReadMode::kDirect);
    if (direct->identity() == file_.identity()) direct_ = std::move(direct);
  } catch (const Error&) {  // no direct I/O, or the path now leads to another file
  }
  if (direct_ == nullptr) allow_direct_ = false;
  return direct_.get();
}

}  // namespace tensorbundle
