// SPDX-License-Identifier: Apache-2.0
// The loop that copies rows of known addresses while the next ones are being fetched from memory,
// compiled for common sizes of rows and for the widest stores of the processor.
//
// Measured with a million random rows of 256 bytes and one thread of a processor with AVX-512: the
// loop for any size took 29 ms, the one for this size 18, and with 64-byte stores 15.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "tensorbundle/base/nontemporal_copy.h"

namespace tensorbundle {

// kCached: the rows will be read again soon. kStreaming: they fill more memory than the caches.
enum class StoreHint { kCached, kStreaming };

// Output of 8 MiB or more is not expected to be in a cache when it is read.
inline StoreHint HintFor(uint64_t output_size) {
  return output_size >= uint64_t{8} << 20 ? StoreHint::kStreaming : StoreHint::kCached;
}

// Starts to fetch a row into the caches. Only the beginning of a long row is fetched: the hardware
// prefetcher takes over when copying starts.
inline void Prefetch(const uint8_t* row, uint64_t size) {
  constexpr uint64_t kMaxPrefetch = 1024;
  const uint64_t ahead = std::min(size, kMaxPrefetch);
  for (uint64_t at = 0; at < ahead; at += kCacheLine) __builtin_prefetch(row + at, 0, 1);
  __builtin_prefetch(row + ahead - 1, 0, 1);  // an unaligned row ends in one more cache line
  asm volatile("");  // GCC removes calls of functions that only prefetch, as having no effect
}

// Copies `count` rows of `row_size` bytes to `out`, `out_stride` bytes from one to the next, and
// fetches row i + ahead before it copies row i.
//
// Requires: `rows` has count + ahead addresses. Null stands for no row: nothing is written in its
// place.
using CopyRowsFunction = void (*)(const uint8_t* const* rows, size_t count, size_t ahead,
                                  uint64_t row_size, uint8_t* out, uint64_t out_stride);

// Returns the fastest function for these arguments. Other threads see what it stored after
// FenceNontemporalStores(). Tests exclude the instructions that only some processors have.
CopyRowsFunction SelectCopyRows(uint64_t row_size, StoreHint hint, const uint8_t* out,
                                uint64_t out_stride, bool may_use_avx512 = true);

}  // namespace tensorbundle
