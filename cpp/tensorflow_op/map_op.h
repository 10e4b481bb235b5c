// SPDX-License-Identifier: Apache-2.0
// Boxes of a tensor as copy-on-write mappings of the checkpoint's data file.
#pragma once

#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// Maps a box as a private, writable mapping of its file, with one extra row at the end whose
// contents are undefined. TensorFlow updates a tensor in place only if it owns the buffer. It owns
// a slice of a larger tensor, but not the larger tensor itself, so the graph slices off the extra
// row. The file is never modified.
// Throws: OpError (INVALID_ARGUMENT) with a remedy if the box cannot be mapped or has no rows;
// CorruptionError if the file is too short.
// Lifetime: the mapping is unmapped together with the tensor's buffer.
TensorPtr MapBox(const OpenTensor& source, const Box& box);

}  // namespace tensorbundle::op
