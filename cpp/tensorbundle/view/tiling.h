// SPDX-License-Identifier: Apache-2.0
// How the stored pieces of a tensor lie in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
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

// Rows [begin, end) whose elements come from the same pieces.
struct RowBandCover {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<size_t> overlaps;  // in RowCover::overlaps
  std::string fault;             // why these rows cannot be read, or ""
};

// How pieces give the rows of a tensor, along axis 0.
struct RowCover {
  std::vector<PieceOverlap> overlaps;  // every piece with elements; all of it
  std::vector<RowBandCover> bands;  // in order, without a gap; none for a tensor without elements
  bool has_faults = false;          // an element is stored nowhere or twice

  // The band of a row that the tensor has.
  const RowBandCover& At(int64_t row) const;
};

// Of a tensor of rank 1 or more, which may be stored in part. Throws UnsupportedError for slices in
// a pattern that would take too much time or memory.
RowCover CoverRows(const Catalog& catalog, const Tensor& tensor);

// The tensor's pieces in row-major order when each is one run of it and they follow each other
// without a gap in one file: then the stored bytes are the tensor's. Empty when they are not that.
std::vector<const Piece*> ContiguousPieces(const Catalog& catalog, const Tensor& tensor);

}  // namespace tensorbundle
