// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/tensor_slice.h"

#include <algorithm>

namespace tensorbundle {
namespace {

// Replaces kFullLength. Returns false if the extent is invalid on an axis of size `dim`.
bool NormalizeExtent(int64_t dim, Extent* extent) {
  if (*extent == Extent{0, kFullLength}) extent->length = dim;
  return extent->start >= 0 && extent->start <= dim && extent->length >= 0 &&
         extent->length <= dim - extent->start && (extent->length > 0 || dim == 0);
}

}  // namespace

std::optional<Box> NormalizeSlice(EncodedSlice slice, std::span<const int64_t> dims) {
  Box box(slice.begin(), slice.end());
  for (size_t axis = 0; axis < box.size(); ++axis) {
    if (!NormalizeExtent(dims[axis], &box[axis])) return std::nullopt;
  }
  return box;
}

std::string DescribeInvalidSlice(EncodedSlice slice, std::span<const int64_t> dims) {
  size_t axis = 0;
  Extent extent = slice[axis];
  while (NormalizeExtent(dims[axis], &extent)) extent = slice[++axis];
  return "a slice takes " + std::to_string(extent.length) + " from " +
         std::to_string(extent.start) + " on of axis " + std::to_string(axis) + " of shape " +
         ShapeToString(dims);
}

std::optional<Box> Intersect(std::span<const Extent> a, std::span<const Extent> b) {
  Box intersection;
  intersection.reserve(a.size());
  for (size_t axis = 0; axis < a.size(); ++axis) {
    const int64_t start = std::max(a[axis].start, b[axis].start);
    const int64_t end = std::min(a[axis].end(), b[axis].end());
    if (end <= start) return std::nullopt;
    intersection.push_back({start, end - start});
  }
  return intersection;
}

std::string ToString(std::span<const Extent> box) {
  std::string text = "[";
  for (const Extent& extent : box) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(extent.start) + ":" + std::to_string(extent.end());
  }
  return text + "]";
}

std::string ShapeToString(std::span<const int64_t> dims) {
  std::string text = "(";
  for (const int64_t dim : dims) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(dim);
  }
  return text + ")";
}

}  // namespace tensorbundle
