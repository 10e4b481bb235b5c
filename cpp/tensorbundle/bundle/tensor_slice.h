// SPDX-License-Identifier: Apache-2.0
// Boxes inside a tensor: one extent (start and length) per axis. TensorFlow calls a box a tensor
// slice.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tensorbundle {

// The elements [start, start + length) of one axis.
struct Extent {
  int64_t start = 0;
  int64_t length = 0;

  int64_t end() const { return start + length; }
  bool operator==(const Extent&) const = default;
};

// In a file, the extent {0, kFullLength} encodes the whole axis.
inline constexpr int64_t kFullLength = -1;

using Box = std::vector<Extent>;

// The extents of a slice as they are encoded in a file. Equal slices may be encoded differently: a
// whole axis as {0, kFullLength} or as {0, size of the axis}.
using EncodedSlice = std::span<const Extent>;

inline Box WholeBox(std::span<const int64_t> dims) {
  Box box;
  box.reserve(dims.size());
  for (const int64_t dim : dims) box.push_back({0, dim});
  return box;
}

// Returns the offset of a box per axis.
inline std::vector<int64_t> Starts(std::span<const Extent> box) {
  std::vector<int64_t> starts;
  starts.reserve(box.size());
  for (const Extent& extent : box) starts.push_back(extent.start);
  return starts;
}

// Returns the shape of a box.
inline std::vector<int64_t> Lengths(std::span<const Extent> box) {
  std::vector<int64_t> lengths;
  lengths.reserve(box.size());
  for (const Extent& extent : box) lengths.push_back(extent.length);
  return lengths;
}

// Returns the box of a slice of a tensor of shape `dims`: replaces kFullLength by the size of the
// axis. Returns nothing if the slice is empty (and no axis is) or not inside the tensor.
// Requires: slice.size() == dims.size().
std::optional<Box> NormalizeSlice(EncodedSlice slice, std::span<const int64_t> dims);

// Returns the error message about a slice. Requires: NormalizeSlice returns nothing for it.
std::string DescribeInvalidSlice(EncodedSlice slice, std::span<const int64_t> dims);

// Returns the number of elements of a box. Requires: it is inside a shape for which CheckedVolume
// returns a number.
inline uint64_t Volume(std::span<const Extent> box) {
  uint64_t volume = 1;
  for (const Extent& extent : box) volume *= static_cast<uint64_t>(extent.length);
  return volume;
}

// Returns the intersection of two boxes of the same rank, or nothing if it is empty.
std::optional<Box> Intersect(std::span<const Extent> a, std::span<const Extent> b);

// Returns "[0:4, 10:20]" and "(4, 20)", for messages.
std::string ToString(std::span<const Extent> box);
std::string ShapeToString(std::span<const int64_t> dims);

}  // namespace tensorbundle
