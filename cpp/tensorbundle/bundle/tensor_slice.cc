// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/tensor_slice.h"

#include <algorithm>

namespace tensorbundle {

std::optional<Box> NormalizeSlice(std::span<const Extent> spelled, std::span<const int64_t> dims,
                                  std::string* fault) {
  Box box(spelled.begin(), spelled.end());
  for (size_t axis = 0; axis < box.size(); ++axis) {
    const int64_t dim = dims[axis];
    Extent& extent = box[axis];
    if (extent == Extent{0, kFullLength}) extent.length = dim;
    const bool inside = extent.start >= 0 && extent.start <= dim && extent.length >= 0 &&
                        extent.length <= dim - extent.start && (extent.length > 0 || dim == 0);
    if (inside) continue;
    *fault = "a slice takes " + std::to_string(extent.length) + " from " +
             std::to_string(extent.start) + " on of axis " + std::to_string(axis) + " of shape " +
             ShapeToString(dims);
    return std::nullopt;
  }
  return box;
}

std::optional<Box> Intersect(std::span<const Extent> a, std::span<const Extent> b) {
  Box common;
  common.reserve(a.size());
  for (size_t axis = 0; axis < a.size(); ++axis) {
    const int64_t start = std::max(a[axis].start, b[axis].start);
    const int64_t end = std::min(a[axis].end(), b[axis].end());
    if (end <= start) return std::nullopt;
    common.push_back({start, end - start});
  }
  return common;
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
