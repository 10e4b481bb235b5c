// SPDX-License-Identifier: Apache-2.0
// Reading a range of a file and computing its CRC32C in the same pass, by threads.
#pragma once

#include <cstdint>
#include <functional>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

// What one thread reads and checksums at a time: small enough that the checksum finds the bytes in
// its second-level cache, large enough that the system call does not count.
inline constexpr uint64_t kReadChunkSize = uint64_t{256} << 10;

// Fills `out` from `offset` on. Throws as File::ReadAt.
void ParallelRead(const File& file, uint64_t offset, MutableByteSpan out, int threads);

// The same, and returns the CRC32C of the bytes.
uint32_t ParallelReadWithChecksum(const File& file, uint64_t offset, MutableByteSpan out,
                                  int threads);

// The CRC32C of a range that nobody wants to keep: memory use is one chunk per thread. `progress`
// is called from any thread with the number of bytes just done; it may throw to stop.
uint32_t ParallelChecksum(const File& file, uint64_t offset, uint64_t size, int threads,
                          const std::function<void(uint64_t)>& progress);

}  // namespace tensorbundle
