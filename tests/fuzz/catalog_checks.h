// SPDX-License-Identifier: Apache-2.0
// The invariants of a Catalog, whatever index it was read from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fuzz_input.h"
#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/slice_cover.h"

namespace tensorbundle::fuzz {

inline void CheckSlice(const Catalog& catalog, const Tensor& tensor, const StoredSlice& slice) {
  Require(slice.file < catalog.files.size());
  Require(RangeFits(slice.offset, slice.size, INT64_MAX));
  const Box box = catalog.BoxOf(tensor, slice);
  Require(box.size() == tensor.rank);
  for (size_t axis = 0; axis < box.size(); ++axis) {
    const int64_t dim = catalog.Shape(tensor)[axis];
    Require(box[axis].start >= 0 && box[axis].length >= 0 &&
            box[axis].length <= dim - box[axis].start);
  }
  const DataTypeInfo* info = FindDataType(tensor.dtype);
  if (info != nullptr && info->item_size > 0 && slice.encoding == Encoding::kDense) {
    Require(slice.size == Volume(box) * info->item_size);
  }
}

inline void CheckCatalog(const Catalog& catalog) {
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    const Tensor& tensor = catalog.tensors[i];
    Require(i == 0 || catalog.tensors[i - 1].name < tensor.name);
    Require(catalog.Find(tensor.name) == i);
    Require(CheckedVolume(catalog.Shape(tensor)) == tensor.num_elements);
    for (const StoredSlice& slice : catalog.Slices(tensor)) CheckSlice(catalog, tensor, slice);
    if (tensor.num_elements == 0) continue;
    const Box whole = WholeBox(catalog.Shape(tensor));
    try {
      FindFileRange(catalog, tensor, whole);
      FindOverlaps(catalog, tensor, whole);
    } catch (const Error&) {
    }
  }
}

// Reads an index and checks its catalog, unless it is damaged.
inline void CheckIndex(const std::string& file) {
  try {
    const auto source = std::make_shared<MemorySource>(
        "fuzz.index", std::vector<uint8_t>(file.begin(), file.end()));
    CheckCatalog(ReadBundleIndex("fuzz", source).catalog);
  } catch (const Error&) {
  }
}

}  // namespace tensorbundle::fuzz
