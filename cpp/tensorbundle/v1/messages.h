// SPDX-License-Identifier: Apache-2.0
// The messages of a V1 checkpoint, tensorflow/core/util/saved_tensor_slice.proto:
//
//   SavedTensorSlices    { SavedTensorSliceMeta meta = 1;  SavedSlice data = 2; }
//   SavedTensorSliceMeta { repeated SavedSliceMeta tensor = 1;  VersionDef versions = 2; }
//   SavedSliceMeta       { name = 1;  TensorShapeProto shape = 2;  type = 3;
//                          repeated TensorSliceProto slice = 4; }
//   SavedSlice           { name = 1;  TensorSliceProto slice = 2;  TensorProto data = 3; }
//
// Every decoder returns nothing or false when the message is malformed, gives a known field a wrong
// wire type or repeats a singular one: no TensorFlow writes that.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// The meta in the value of the empty key, or nothing also when the value holds something else.
std::optional<ByteSpan> DecodeMetaValue(ByteSpan value);

// SavedTensorSliceMeta: what it lists, not yet decoded. Borrowed from the message.
struct SliceMetaList {
  std::vector<ByteSpan> tensors;
  std::optional<ByteSpan> versions;  // none: written before there were versions
};
std::optional<SliceMetaList> DecodeSliceMetaList(ByteSpan message);

// SavedSliceMeta: a tensor and those of its slices that one file holds.
struct SliceMeta {
  std::string_view name;  // borrowed; never empty
  int32_t dtype = 0;
  std::vector<int64_t> dims;  // none for a scalar
  // num_slices times their extents, one behind the other, as the file spells them.
  uint64_t num_slices = 0;
  std::vector<Extent> slice_extents;

  void Clear();  // keeps the vectors' memory
};

// False also for an unknown rank and for slices of another rank than the shape.
bool DecodeSliceMeta(ByteSpan message, SliceMeta* meta);

// The name of a SavedSliceMeta, without decoding the rest.
std::optional<std::string_view> DecodeSliceMetaName(ByteSpan message);

// SavedSlice, in the value of any other key.
struct SavedSlice {
  std::string_view name;        // borrowed
  std::vector<Extent> extents;  // as spelled
  ByteSpan values;              // TensorProto; borrowed
};
std::optional<SavedSlice> DecodeSavedSlice(ByteSpan value);

// The bytes that come before the payload in a record whose elements are one packed field, with
// nothing behind it, spelled as TensorFlow spells it. Whatever begins with them and is
// `payload_size` bytes longer has its payload there; other spellings are legal too.
std::string PackedRecordHead(std::string_view name, std::span<const Extent> spelled,
                             uint32_t value_field, uint64_t payload_size);

// What the slices of a V1 checkpoint are called in their files.

// A slice's key spells its extents as the writer did, a whole axis in one of two ways; the catalog
// has them with whole axes written out. This remembers which they were. A slice without extents of
// its own is spelled as all whole axes.
class SliceNames {
 public:
  // Records how the extents that the catalog got next, as many as `spelled`, were spelled.
  void Append(std::span<const Extent> spelled) {
    for (const Extent& extent : spelled) whole_axis_.push_back(extent.length == kFullLength);
  }

  // The slice's extents as spelled. `extents` are those of the catalog.
  Box Spelled(std::span<const Extent> extents, const Tensor& tensor,
              const StoredSlice& slice) const;

  // The key of the slice's record.
  std::string Key(std::span<const Extent> extents, const Tensor& tensor,
                  const StoredSlice& slice) const;

 private:
  std::vector<bool> whole_axis_;  // one per extent of the catalog
};

}  // namespace tensorbundle
