// SPDX-License-Identifier: Apache-2.0
// Checksums of parts as tensors: what travels between the op that reads and the op that compares.
#pragma once

#include <span>
#include <vector>

#include "tensorbundle/read/read_box.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// Writes output `index`: int64 of shape [parts, 4], with slice, offset, bytes and CRC32C in a row.
void WriteParts(const Run& run, int index, std::span<const PartialChecksum> parts);

// Appends the rows of such a tensor. Throws OpError (INVALID_ARGUMENT) for any other.
void AppendParts(const TF_Tensor* tensor, std::vector<PartialChecksum>* parts);

}  // namespace tensorbundle::op
