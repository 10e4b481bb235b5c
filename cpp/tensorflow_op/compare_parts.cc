// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/compare_parts.h"

#include "tensorbundle/read/verify.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

void CompareParts(const OpenTensor& source, std::span<const PartialChecksum> parts,
                  int64_t threads) {
  uint64_t size = 0;
  for (const StoredSlice& slice : source.checkpoint->catalog().Slices(*source.tensor)) {
    size += slice.size;
  }
  VerifyChecksums(*source.checkpoint, *source.tensor, parts, ThreadsFor(threads, size));
}

}  // namespace tensorbundle::op
