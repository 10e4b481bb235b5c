// SPDX-License-Identifier: Apache-2.0
// Reading of string tensors.
#pragma once

#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorflow_op/checkpoint_cache.h"

namespace tensorbundle::op {

// Copies the elements of a box to the string tensor `out`. Compares checksums if `verify` is set.
// Throws: OpError (UNIMPLEMENTED) if this TensorFlow does not export TF_StringCopy; as
// ReadStrings().
void ReadStringBox(const OpenTensor& source, const Box& box, bool verify, TF_Tensor* out);

}  // namespace tensorbundle::op
