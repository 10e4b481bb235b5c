// SPDX-License-Identifier: Apache-2.0
// Variant tensors, for example the state of a tf.data iterator.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

// Creates a variant tensor. Each element is a serialized VariantTensorDataProto. The C API has no
// function for it, so that TensorFlow's op ParseTensor is executed on a serialized TensorProto.
// Throws: OpError (UNIMPLEMENTED) if this TensorFlow does not export the functions for it; OpError
// with TensorFlow's code if it cannot decode an element.
TensorPtr NewVariantTensor(std::span<const int64_t> dims, std::span<const std::string> elements);

}  // namespace tensorbundle::op
