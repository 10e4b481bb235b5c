// SPDX-License-Identifier: Apache-2.0
// Casts between float32 and bfloat16, which is the upper half of a float32. ml_dtypes has them too,
// but runs them one element at a time, with the GIL.
//
//   to bfloat16     to nearest, ties to even; a NaN becomes the quiet NaN of its sign, as in
//   TensorFlow to float32      exact
#pragma once

#include <cstdint>
#include <span>

namespace tensorbundle {

// The numbers are given by their bits. Requires: both spans have the same size and do not overlap.
void CastToBfloat16(std::span<const uint32_t> from, std::span<uint16_t> to);
void CastToFloat32(std::span<const uint16_t> from, std::span<uint32_t> to);

}  // namespace tensorbundle
