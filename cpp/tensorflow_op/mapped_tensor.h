// SPDX-License-Identifier: Apache-2.0
// A tensor of TensorFlow whose memory is the checkpoint's file.
#pragma once

#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// What TensorFlow requires of a tensor's address.
inline constexpr uint64_t kTensorAlignment = 64;

// A box as a private, writable mapping of its file, with one more row behind its
// last, whose contents are not said: TensorFlow updates memory in place only where it takes it for
// its own, as it does with a slice of a larger tensor, but not with the tensor itself. The mapping
// lives as long as the tensor's buffer; the file never changes. Throws OpError (INVALID_ARGUMENT),
// with the cure, where the box cannot be mapped, as one without rows; CorruptionError when the file
// is too short.
TensorPtr MapBox(const OpenTensor& source, const Box& box);

}  // namespace tensorbundle::op
