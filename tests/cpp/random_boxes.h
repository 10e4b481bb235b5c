// SPDX-License-Identifier: Apache-2.0
// Random boxes and tilings, and a simple iteration over their elements.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle::testing {

using Random = std::mt19937;

inline int64_t Below(Random* random, int64_t limit) {
  return static_cast<int64_t>((*random)() % static_cast<uint64_t>(limit));
}

inline std::vector<int64_t> RandomShape(Random* random, int64_t max_rank, int64_t max_dim) {
  std::vector<int64_t> shape(static_cast<size_t>(Below(random, max_rank + 1)));
  for (int64_t& dim : shape) dim = 1 + Below(random, max_dim);
  return shape;
}

inline Box RandomBoxIn(Random* random, std::span<const Extent> outer) {
  Box box;
  for (const Extent& extent : outer) {
    const int64_t start = Below(random, extent.length);
    box.push_back({extent.start + start, 1 + Below(random, extent.length - start)});
  }
  return box;
}

// Cuts a box at random positions.
inline std::vector<Box> RandomTiling(Random* random, const Box& whole, int cuts) {
  std::vector<Box> tiles = {whole};
  for (int i = 0; i < cuts && !whole.empty(); ++i) {
    const auto at = static_cast<size_t>(Below(random, static_cast<int64_t>(tiles.size())));
    const auto axis = static_cast<size_t>(Below(random, static_cast<int64_t>(whole.size())));
    const Extent extent = tiles[at][axis];
    if (extent.length < 2) continue;
    const int64_t length = 1 + Below(random, extent.length - 1);
    Box rest = tiles[at];
    tiles[at][axis].length = length;
    rest[axis] = {extent.start + length, extent.length - length};
    tiles.push_back(rest);
  }
  return tiles;
}

// Calls body(index) with the row-major index in `outer` of every element of `box`, row-major.
template <typename Body>
void ForEachElement(std::span<const Extent> outer, std::span<const Extent> box, const Body& body) {
  for (uint64_t n = 0; n < Volume(box); ++n) {
    uint64_t rest = n;
    uint64_t index = 0;
    uint64_t stride = 1;
    for (size_t axis = box.size(); axis-- > 0;) {
      const auto length = static_cast<uint64_t>(box[axis].length);
      const auto offset = static_cast<uint64_t>(box[axis].start - outer[axis].start);
      index += (offset + rest % length) * stride;
      stride *= static_cast<uint64_t>(outer[axis].length);
      rest /= length;
    }
    body(index);
  }
}

// A catalog of one tensor of bytes whose slices are consecutive in one file.
inline Catalog CatalogOf(const std::vector<int64_t>& shape, const std::vector<Box>& boxes) {
  Catalog catalog;
  catalog.dims = shape;
  catalog.files = {"data"};
  uint64_t offset = 0;
  for (const Box& box : boxes) {
    StoredSlice slice;
    slice.first_extent = catalog.extents.size();
    slice.offset = offset;
    slice.size = Volume(box);
    offset += slice.size;
    catalog.slices.push_back(slice);
    catalog.extents.insert(catalog.extents.end(), box.begin(), box.end());
  }
  Tensor tensor;
  tensor.name = "t";
  tensor.dtype = DataType::kInt8;
  tensor.rank = static_cast<uint32_t>(shape.size());
  tensor.num_elements = Volume(WholeBox(shape));
  tensor.num_slices = boxes.size();
  catalog.tensors = {tensor};
  return catalog;
}

}  // namespace tensorbundle::testing
