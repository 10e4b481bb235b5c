// SPDX-License-Identifier: Apache-2.0
// The text that says which part of which tensor: TensorFlow's `shape_and_slice`.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle::op {

// The part of a tensor of that shape that a spec means: "10 10 4,3:0,10" is rows 4 to 6 of a 10 by
// 10 tensor, "-" stands for a whole axis, and "" for the whole tensor. Throws OpError
// (INVALID_ARGUMENT) for what is not a spec, has another shape, or leaves the tensor. `tensor` is
// for messages.
Box ParseSliceSpec(const std::string& spec, const std::string& tensor,
                   std::span<const int64_t> shape);

// "[10,10]"
std::string ShapeText(std::span<const int64_t> shape);

}  // namespace tensorbundle::op
