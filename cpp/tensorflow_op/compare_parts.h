// SPDX-License-Identifier: Apache-2.0
// What ops that read know of their bytes, against the stored checksums.
#pragma once

#include <cstdint>
#include <span>

#include "tensorbundle/read/read_box.h"
#include "tensorflow_op/checkpoint_cache.h"

namespace tensorbundle::op {

// VerifyChecksums with as many threads as the tensor's size is worth; `threads` is an op's
// attribute.
void CompareParts(const OpenTensor& source, std::span<const PartialChecksum> parts,
                  int64_t threads);

}  // namespace tensorbundle::op
