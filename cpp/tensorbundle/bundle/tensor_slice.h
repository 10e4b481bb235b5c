// SPDX-License-Identifier: Apache-2.0
// Boxes inside a tensor: one extent per axis. TensorFlow calls a box a tensor slice.
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

// In a file, "the whole axis" is spelled as this length, with start 0.
inline constexpr int64_t kFullLength = -1;

using Box = std::vector<Extent>;

inline Box WholeBox(std::span<const int64_t> dims) {
  Box box;
  box.reserve(dims.size());
  for (const int64_t dim : dims) box.push_back({0, dim});
  return box;
}

// Where a box begins.
inline std::vector<int64_t> Starts(std::span<const Extent> box) {
  std::vector<int64_t> starts;
  starts.reserve(box.size());
  for (const Extent& extent : box) starts.push_back(extent.start);
  return starts;
}

// The shape of a box.
inline std::vector<int64_t> Lengths(std::span<const Extent> box) {
  std::vector<int64_t> lengths;
  lengths.reserve(box.size());
  for (const Extent& extent : box) lengths.push_back(extent.length);
  return lengths;
}

// What a slice of a tensor of shape `dims` is when its whole axes are written out. Nothing, and why
// in `fault`, when it is empty or not inside the tensor. `spelled` has the tensor's rank.
std::optional<Box> NormalizeSlice(std::span<const Extent> spelled, std::span<const int64_t> dims,
                                  std::string* fault);

// Elements in a box whose extents lie inside a shape of checked volume.
inline uint64_t Volume(std::span<const Extent> box) {
  uint64_t volume = 1;
  for (const Extent& extent : box) volume *= static_cast<uint64_t>(extent.length);
  return volume;
}

// What two boxes of one rank have in common, or nothing when they do not touch.
std::optional<Box> Intersect(std::span<const Extent> a, std::span<const Extent> b);

// "[0:4, 10:20]", for messages.
std::string ToString(std::span<const Extent> box);
std::string ShapeToString(std::span<const int64_t> dims);

}  // namespace tensorbundle
