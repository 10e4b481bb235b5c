// SPDX-License-Identifier: Apache-2.0
// Strings into TensorFlow's string tensors.
#pragma once

#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// Fills an allocated string tensor with the elements of a box. Checksums are compared when `verify`
// is set. Throws OpError (UNIMPLEMENTED) where this TensorFlow does not export what it takes; as
// ReadStrings.
void ReadStringBox(const OpenTensor& source, const Box& box, bool verify, TF_Tensor* out);

}  // namespace tensorbundle::op
