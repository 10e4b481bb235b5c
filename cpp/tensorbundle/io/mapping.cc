// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

#ifdef MAP_NORESERVE
constexpr int kNoReserve = MAP_NORESERVE;
#else
constexpr int kNoReserve = 0;
#endif

// The address of an empty range, because mmap() refuses length 0. It is never read.
alignas(64) uint8_t kEmptyRange = 0;

void* Map(void* at, const File& file, uint64_t offset, uint64_t size, int protection, int flags) {
  void* base = ::mmap(at, size, protection, flags, file.descriptor(), static_cast<off_t>(offset));
  if (base == MAP_FAILED) {
    throw IOFailure("cannot map " + std::to_string(size) + " bytes of " + file.path(), file.path(),
                    errno);
  }
  return base;
}

}  // namespace

std::shared_ptr<const Mapping> Mapping::OfFile(const File& file) {
  std::shared_ptr<Mapping> mapping(new Mapping);
  if (file.size() == 0) {
    mapping->Hold(&kEmptyRange, 0, 0, 0);
  } else {
    void* base = Map(nullptr, file, 0, file.size(), PROT_READ, MAP_SHARED);
    mapping->Hold(base, file.size(), 0, file.size());
  }
  return mapping;
}

std::shared_ptr<const Mapping> Mapping::Private(const File& file) {
  try {
    return CopyOnWrite(file, 0, file.size());
  } catch (const IOFailure&) {
    return OfFile(file);
  }
}

std::shared_ptr<const Mapping> Mapping::CopyOnWrite(const File& file, uint64_t offset,
                                                    uint64_t size, uint64_t padding) {
  if (!RangeFits(offset, size, file.size())) {
    throw CorruptionError("bytes [" + std::to_string(offset) + ", +" + std::to_string(size) +
                          ") are not in " + file.path() + " of " + std::to_string(file.size()) +
                          " bytes");
  }
  std::shared_ptr<Mapping> mapping(new Mapping);
  if (size == 0) {
    mapping->Hold(&kEmptyRange, 0, 0, 0);
    return mapping;
  }
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t skip = offset % page;
  const int flags = MAP_PRIVATE | kNoReserve;
  if (padding == 0) {
    void* base = Map(nullptr, file, offset - skip, size + skip, PROT_READ | PROT_WRITE, flags);
    mapping->Hold(base, size + skip, skip, size);
    return mapping;
  }
  // Maps anonymous pages first, then the file over the first of them. The anonymous pages that
  // remain are the padding.
  const std::optional<uint64_t> padded = CheckedAdd(size + skip, padding);
  void* base = !padded
                   ? MAP_FAILED
                   : ::mmap(nullptr, *padded, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) {
    throw IOFailure("cannot reserve memory to map " + file.path(), file.path(), ENOMEM);
  }
  mapping->Hold(base, *padded, skip, size + padding);
  Map(base, file, offset - skip, size + skip, PROT_READ | PROT_WRITE, flags | MAP_FIXED);
  return mapping;
}

void Mapping::Hold(void* base, size_t mapped, size_t skip, size_t size) {
  base_ = base;
  mapped_ = mapped;
  data_ = static_cast<uint8_t*>(base) + skip;
  size_ = size;
}

Mapping::~Mapping() {
  if (mapped_ != 0) ::munmap(base_, mapped_);
}

}  // namespace tensorbundle
