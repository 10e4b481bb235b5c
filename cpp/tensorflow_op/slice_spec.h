// SPDX-License-Identifier: Apache-2.0
// TensorFlow's `shape_and_slice` format: the dimensions of a tensor, then a box in it. For example
// "10 10 4,3:0,10" is rows 4 to 6 of a 10 by 10 tensor; "-" stands for a whole axis, and "" for the
// whole tensor.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorflow_op/tf_api.h"

namespace tensorbundle::op {

// Parses the box of a tensor of shape `shape`. `tensor` is its name for messages.
// Throws: OpError (INVALID_ARGUMENT) if `spec` is malformed or has another shape; OpError with the
// code `out_of_bounds` if the box has another rank or is not inside the tensor.
Box ParseSliceSpec(const std::string& spec, const std::string& tensor,
                   std::span<const int64_t> shape, Code out_of_bounds = Code::kInvalidArgument);

}  // namespace tensorbundle::op
