// SPDX-License-Identifier: Apache-2.0
// Bytes as a tensor's shape, its stored slices and a box to read, held against counting every
// element.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "fuzz_input.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/slice_cover.h"

namespace tensorbundle::fuzz {
namespace {

// A box in a shape, from the input.
Box BoxIn(const std::vector<int64_t>& shape, Input* input) {
  Box box;
  for (const int64_t dim : shape) {
    const int64_t start = input->Below(dim);
    box.push_back({start, 1 + input->Below(dim - start)});
  }
  return box;
}

// Calls body(index in the tensor) for every element of a box, row-major.
template <typename Body>
void ForEachElement(const std::vector<int64_t>& shape, const Box& box, const Body& body) {
  for (uint64_t n = 0; n < Volume(box); ++n) {
    uint64_t rest = n;
    uint64_t index = 0;
    uint64_t stride = 1;
    for (size_t axis = box.size(); axis-- > 0;) {
      const auto length = static_cast<uint64_t>(box[axis].length);
      index += (static_cast<uint64_t>(box[axis].start) + rest % length) * stride;
      stride *= static_cast<uint64_t>(shape[axis]);
      rest /= length;
    }
    body(index);
  }
}

constexpr int64_t kMaxElements = 256;  // of the tensor: counting them takes most of the time

struct Example {
  std::vector<int64_t> shape;
  Catalog catalog;
  Box box;
};

Example MakeExample(Input input) {
  Example example;
  const int64_t rank = input.Below(5);
  for (int64_t axis = 0, room = kMaxElements; axis < rank; ++axis) {
    example.shape.push_back(1 + input.Below(std::min<int64_t>(6, room)));
    room /= example.shape.back();
  }
  example.box = BoxIn(example.shape, &input);
  Catalog& catalog = example.catalog;
  catalog.dims = example.shape;
  uint64_t offset = 0;
  while (input.more() && catalog.slices.size() < 64) {
    const Box box = BoxIn(example.shape, &input);
    StoredSlice slice;
    slice.first_extent = catalog.extents.size();
    slice.offset = offset;
    slice.size = Volume(box);
    offset += slice.size;
    catalog.slices.push_back(slice);
    catalog.extents.insert(catalog.extents.end(), box.begin(), box.end());
  }
  Tensor tensor;
  tensor.dtype = DataType::kInt8;
  tensor.rank = static_cast<uint32_t>(rank);
  tensor.num_elements = Volume(WholeBox(example.shape));
  tensor.num_slices = catalog.slices.size();
  catalog.tensors = {tensor};
  return example;
}

// Whether every element of the box is in exactly one slice, and no two of the slices that touch it
// overlap.
bool IsCovered(const Example& example) {
  const Catalog& catalog = example.catalog;
  std::vector<int> times(catalog.tensors[0].num_elements);
  for (const StoredSlice& slice : catalog.slices) {
    const Box box = catalog.BoxOf(catalog.tensors[0], slice);
    if (!Intersect(box, example.box)) continue;
    ForEachElement(example.shape, box, [&](uint64_t i) { ++times[i]; });
  }
  if (std::any_of(times.begin(), times.end(), [](int n) { return n > 1; })) return false;
  bool whole = true;
  ForEachElement(example.shape, example.box, [&](uint64_t i) { whole &= times[i] == 1; });
  return whole;
}

// Copies the elements of the slices, each of which is its own index, and checks the copies.
void CheckCopies(const Example& example, const std::vector<SliceOverlap>& overlaps) {
  constexpr uint64_t kItem = sizeof(uint32_t);
  std::vector<uint32_t> out(Volume(example.box), UINT32_MAX);
  for (const SliceOverlap& overlap : overlaps) {
    std::vector<uint32_t> stored;
    ForEachElement(example.shape, overlap.slice_box,
                   [&](uint64_t i) { stored.push_back(static_cast<uint32_t>(i)); });
    const CopyLayout layout(overlap.slice_box, example.box, overlap.intersection, kItem);
    Require(layout.count() * layout.span_size() == Volume(overlap.intersection) * kItem);
    layout.ForEach(0, layout.count(), [&](const CopyLayout::Span& run) {
      Require(run.source % kItem == 0 && run.source + layout.span_size() <= stored.size() * kItem);
      Require(run.destination + layout.span_size() <= out.size() * kItem);
      std::copy_n(stored.begin() + static_cast<ptrdiff_t>(run.source / kItem),
                  layout.span_size() / kItem,
                  out.begin() + static_cast<ptrdiff_t>(run.destination / kItem));
    });
  }
  size_t n = 0;
  ForEachElement(example.shape, example.box, [&](uint64_t i) { Require(out[n++] == i); });
}

// The bytes of a range that is found for a box must be the box's elements in their order.
void CheckFileRange(const Example& example, const Box& box) {
  const Catalog& catalog = example.catalog;
  const BoxLocation location = FindFileRange(catalog, catalog.tensors[0], box);
  if (!location) return;
  Require(location.range.size == Volume(box));
  std::vector<uint64_t> file;  // the index of the element at each offset
  for (const StoredSlice& slice : catalog.slices) {
    file.resize(std::max<uint64_t>(file.size(), slice.offset + slice.size));
    uint64_t offset = slice.offset;
    ForEachElement(example.shape, catalog.BoxOf(catalog.tensors[0], slice),
                   [&](uint64_t i) { file[offset++] = i; });
  }
  uint64_t offset = location.range.offset;
  ForEachElement(example.shape, box, [&](uint64_t i) { Require(file.at(offset++) == i); });
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  using namespace tensorbundle::fuzz;
  const Example example = MakeExample(Input(data, size));
  CheckFileRange(example, WholeBox(example.shape));
  CheckFileRange(example, example.box);
  bool covered = true;
  std::vector<SliceOverlap> overlaps;
  try {
    overlaps = FindOverlaps(example.catalog, example.catalog.tensors[0], example.box);
  } catch (const CorruptionError&) {
    covered = false;
  }
  Require(covered == IsCovered(example));
  if (covered) CheckCopies(example, overlaps);
  return 0;
}
