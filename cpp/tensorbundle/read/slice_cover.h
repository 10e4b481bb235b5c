// SPDX-License-Identifier: Apache-2.0
// How the stored slices of a tensor lie in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// A stored slice and the part of it that a box needs.
struct SliceOverlap {
  const StoredSlice* slice = nullptr;
  Box slice_box;  // in the tensor
  Box common;     // in the tensor

  bool is_whole_slice() const { return slice_box == common; }
};

// Which slices a non-empty box takes its elements from; every element comes from exactly one.
// Throws CorruptionError when slices overlap each other or leave part of the box uncovered, naming
// what is where.
std::vector<SliceOverlap> FindOverlaps(const Catalog& catalog, const Tensor& tensor,
                                       const Box& box);

// Rows [begin, end) whose elements come from the same slices.
struct RowGroupCover {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<size_t> overlaps;  // in RowCover::overlaps
  std::string fault;             // why these rows cannot be read, or ""
};

// How slices give the rows of a tensor, along axis 0.
struct RowCover {
  std::vector<SliceOverlap> overlaps;  // every slice with elements; all of it
  std::vector<RowGroupCover> bands;  // in order, without a gap; none for a tensor without elements
  bool has_faults = false;           // an element is stored nowhere or twice

  // The band of a row that the tensor has.
  const RowGroupCover& At(int64_t row) const;
};

// Of a tensor of rank 1 or more, which may be stored in part. Throws UnsupportedError for slices in
// a pattern that would take too much time or memory.
RowCover CoverRows(const Catalog& catalog, const Tensor& tensor);

// The tensor's slices in row-major order when each is one run of it and they follow each other
// without a gap in one file: then the stored bytes are the tensor's. Empty when they are not that.
std::vector<const StoredSlice*> ContiguousPieces(const Catalog& catalog, const Tensor& tensor);

}  // namespace tensorbundle
