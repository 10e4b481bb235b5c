// SPDX-License-Identifier: Apache-2.0
// TensorbundleVerifyV1, and the int64 tensors of shape [n, 4] that carry partial checksums to it
// from TensorbundleReadV1. One row per checksum:
//   slice   index among the tensor's stored slices
//   offset  of the first byte, in the slice
//   size    in bytes
//   crc     CRC32C of these bytes
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensorbundle/read/read_box.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// Writes the checksums to output `index`.
void WritePartialChecksums(const Run& run, int index, std::span<const PartialChecksum> parts);

// Appends the checksums in `tensor` to `*parts`.
// Throws: OpError (INVALID_ARGUMENT) if the tensor has another shape, or values out of range.
void AppendPartialChecksums(const TF_Tensor* tensor, std::vector<PartialChecksum>* parts);

// Calls VerifyChecksums() with a number of threads that suits the size of the tensor.
// `threads` is the op's attribute.
void VerifyPartialChecksums(const OpenTensor& source, std::span<const PartialChecksum> parts,
                            int64_t threads);

}  // namespace tensorbundle::op
