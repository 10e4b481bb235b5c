// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share: numbers and bytes taken from an input, and files in memory.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle::fuzz {

// Ends the process, which the fuzzer reports with the input, if a property does not hold.
inline void Require(bool condition) {
  if (!condition) std::abort();
}

// Takes values from the bytes of an input, and zeros after its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(AsText({data, size})) {}

  bool more() const { return !rest_.empty(); }

  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const auto byte = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return byte;
  }

  // Returns a number in [0, limit). Requires: 1 <= limit.
  int64_t Below(int64_t limit) {
    return limit <= 256 ? Byte() % limit : (Byte() * 256 + Byte()) % limit;
  }

  int64_t Int64() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | Byte();
    return static_cast<int64_t>(value);
  }

  // Returns up to `size` bytes.
  std::string_view Take(size_t size) {
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }

  // Returns a string that its length precedes, in one byte, or in two bytes from 0xff on.
  std::string_view String() {
    const size_t size = Byte();
    return Take(size < 0xff ? size : size + Byte() * size_t{16});
  }

  std::string_view Rest() { return Take(rest_.size()); }

 private:
  std::string_view rest_;
};

// A file without a name, rewritten for every input.
class ScratchFile {
 public:
  // Calls the kernel: a build for a glibc before 2.27 has no memfd_create().
  explicit ScratchFile(const char* name)
      : descriptor_(static_cast<int>(::syscall(SYS_memfd_create, name, 0))) {
    Require(descriptor_ >= 0);
  }
  ~ScratchFile() { ::close(descriptor_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  std::shared_ptr<const File> Open(std::string_view bytes) const {
    Require(::ftruncate(descriptor_, 0) == 0);
    Require(::pwrite(descriptor_, bytes.data(), bytes.size(), 0) ==
            static_cast<ssize_t>(bytes.size()));
    return File::Open("/proc/self/fd/" + std::to_string(descriptor_));
  }

 private:
  int descriptor_;
};

// Serves bytes that it does not own, without system calls.
class MemoryRanges final : public RangeReader {
 public:
  explicit MemoryRanges(std::string_view bytes) : bytes_(bytes) {}
  ByteSpan Read(uint64_t offset, uint64_t size) const override {
    return AsBytes(bytes_.substr(std::min<uint64_t>(offset, bytes_.size()), size));
  }

 private:
  std::string_view bytes_;
};

// Returns an opener for which every path is a file of these bytes.
// Lifetime: the bytes must outlive the files.
inline FileOpener OpensMemory(std::string_view bytes) {
  return [bytes](const std::string& path, ReadMode) {
    return File::OfRanges(path, bytes.size(), std::make_unique<MemoryRanges>(bytes));
  };
}

}  // namespace tensorbundle::fuzz
