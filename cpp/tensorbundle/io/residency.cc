// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/residency.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#ifdef __linux__
#include <sys/syscall.h>
#endif

namespace tensorbundle {
namespace {

#ifdef __linux__

// cachestat(2), since Linux 6.5: its number is the same on every architecture. Its structures are
// spelled out here because the system's headers may be older than the system.
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

// mincore() says "all" about files that the caller could not write to.
bool MincoreTellsTheTruth(const File& file) {
  struct stat status{};
  if (::fstat(file.descriptor(), &status) != 0) return false;
  return ::geteuid() == 0 || status.st_uid == ::geteuid() ||
         ::access(file.path().c_str(), W_OK) == 0;
}

// Through a mapping that lives for this call and is never touched.
std::optional<uint64_t> PagesByMincore(const File& file, uint64_t offset, uint64_t size,
                                       uint64_t page) {
  if (!MincoreTellsTheTruth(file)) return std::nullopt;
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

}  // namespace tensorbundle
