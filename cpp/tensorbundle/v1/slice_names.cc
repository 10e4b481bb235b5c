// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/slice_names.h"

#include "tensorbundle/bundle/ordered_code.h"

namespace tensorbundle {

Box SliceNames::Spelled(std::span<const Extent> extents, const Tensor& tensor,
                        const Piece& piece) const {
  Box box(tensor.rank, Extent{0, kFullLength});
  if (piece.first_extent == Piece::kWholeTensor) return box;
  for (size_t axis = 0; axis < box.size(); ++axis) {
    const uint64_t at = piece.first_extent + axis;
    if (!whole_axis_[at]) box[axis] = extents[at];
  }
  return box;
}

std::string SliceNames::Key(std::span<const Extent> extents, const Tensor& tensor,
                            const Piece& piece) const {
  return SliceKey(tensor.name, Spelled(extents, tensor, piece));
}

}  // namespace tensorbundle
