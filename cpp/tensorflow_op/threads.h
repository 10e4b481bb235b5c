// SPDX-License-Identifier: Apache-2.0
// How many threads an op works with.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tensorbundle/base/parallel.h"

namespace tensorbundle::op {

// Fewer bytes than this per thread are not worth starting it.
inline constexpr uint64_t kMinBytesPerThread = uint64_t{1} << 20;

// For work on that many bytes. `wanted` is an op's attribute; 0: the processors that the process
// may run on, found out once.
inline int ThreadsFor(int64_t wanted, uint64_t num_bytes) {
  static const int processors = AvailableProcessors();
  const int most = wanted > 0 ? static_cast<int>(std::min<int64_t>(wanted, 1024)) : processors;
  return static_cast<int>(std::clamp<uint64_t>(num_bytes / kMinBytesPerThread, 1, most));
}

}  // namespace tensorbundle::op
