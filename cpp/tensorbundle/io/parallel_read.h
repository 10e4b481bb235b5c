// SPDX-License-Identifier: Apache-2.0
// Parallel reads of a range of a file: into memory, or for its CRC32C only.
#pragma once

#include <cstdint>
#include <functional>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

// The bytes that one thread reads and checksums at a time: few enough to stay in its second-level
// cache, enough to make the cost of the system call negligible.
inline constexpr uint64_t kReadChunkSize = uint64_t{256} << 10;

// The bytes of a task that reads from a file: a chunk, or what the file's reader reads at most.
inline uint64_t ChunkSizeOf(const File& file) {
  switch (file.mode()) {
    case ReadMode::kRanges:
      return kMaxRangeSize;
    case ReadMode::kRequests:
      return kMaxRequestSize;
    default:
      return kReadChunkSize;
  }
}

// Fills `out` with the bytes that start at `offset`.
// Throws: CorruptionError if the file ends too early; IOFailure.
void ParallelRead(const File& file, uint64_t offset, MutableByteSpan out, int threads);

// Returns the CRC32C of a range. Memory: one task per thread. Calls `progress` from any thread
// with the number of bytes just read; it may throw to stop.
// Throws: CorruptionError if the file ends too early; IOFailure; what `progress` throws.
uint32_t ParallelChecksum(const File& file, uint64_t offset, uint64_t size, int threads,
                          const std::function<void(uint64_t)>& progress);

}  // namespace tensorbundle
