// SPDX-License-Identifier: Apache-2.0
// How the stored pieces of a tensor lie in it.
#pragma once

#include <cstdint>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/extent.h"

namespace tensorbundle {

// A stored piece and the part of it that a box needs.
struct PieceOverlap {
  const Piece* piece = nullptr;
  Box piece_box;  // in the tensor
  Box common;     // in the tensor

  bool whole_piece() const { return piece_box == common; }
};

// Which pieces a non-empty box takes its elements from; every element comes from exactly one.
// Throws CorruptionError when pieces overlap each other or leave part of the box uncovered, naming
// what is where.
std::vector<PieceOverlap> CoverBox(const Catalog& catalog, const Tensor& tensor, const Box& box);

// The tensor's pieces in row-major order when each is one run of it and they follow each other
// without a gap in one file: then the stored bytes are the tensor's. Empty when they are not that.
std::vector<const Piece*> ContiguousPieces(const Catalog& catalog, const Tensor& tensor);

}  // namespace tensorbundle
