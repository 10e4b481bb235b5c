// SPDX-License-Identifier: Apache-2.0
// Intersections of a box with the stored slices of its tensor, and the check that the slices cover
// the box: every element is in exactly one slice.
//
// Partitioners make grids, so the slices are divided by straight cuts, recursively: each set is
// sorted along an axis and split wherever no slice crosses a cut. Only slices that no cut divides
// are compared in pairs. The number of comparisons is limited.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// A stored slice and the part of it that a box needs. Boxes are relative to the tensor.
struct SliceOverlap {
  const StoredSlice* slice = nullptr;
  Box slice_box;
  Box intersection;

  bool is_whole_slice() const { return slice_box == intersection; }
};

// Returns the slices that intersect a box, in the order of the catalog. Checks nothing: slices may
// overlap each other or leave holes.
std::vector<SliceOverlap> IntersectSlices(const Catalog& catalog, const Tensor& tensor,
                                          const Box& box);

// Returns the slices from which a non-empty box takes its elements, each element from exactly one
// slice. The order is unspecified.
//
// Throws CorruptionError when slices overlap each other or leave elements of the box uncovered,
// and names the slice or the count; UnsupportedError for slices in a pattern that would take too
// many comparisons.
std::vector<SliceOverlap> FindOverlaps(const Catalog& catalog, const Tensor& tensor,
                                       const Box& box);

// Rows [begin, end) whose elements come from the same slices.
struct CoveredRows {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<size_t> overlaps;  // indices into RowCover::overlaps
  std::exception_ptr error;      // CorruptionError if the rows cannot be read, else null
};

// The slices of a tensor along axis 0.
struct RowCover {
  std::vector<SliceOverlap> overlaps;  // all slices with elements, each of them whole
  std::vector<CoveredRows> groups;     // ascending, without gaps; empty if there are no elements
  bool has_errors = false;             // an element is stored nowhere or twice

  // Returns the group of a row. Requires: the tensor has the row.
  const CoveredRows& At(int64_t row) const;
};

// Requires: the tensor has rank 1 or more. It may be stored in part.
// Throws UnsupportedError for slices in a pattern that would take too much time or memory.
RowCover CoverRows(const Catalog& catalog, const Tensor& tensor);

}  // namespace tensorbundle
