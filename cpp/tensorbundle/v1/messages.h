// SPDX-License-Identifier: Apache-2.0
// The messages of a V1 checkpoint, tensorflow/core/util/saved_tensor_slice.proto:
//
//   SavedTensorSlices    { SavedTensorSliceMeta meta = 1;  SavedSlice data = 2; }
//   SavedTensorSliceMeta { repeated SavedSliceMeta tensor = 1;  VersionDef versions = 2; }
//   SavedSliceMeta       { name = 1;  TensorShapeProto shape = 2;  type = 3;
//                          repeated TensorSliceProto slice = 4; }
//   SavedSlice           { name = 1;  TensorSliceProto slice = 2;  TensorProto data = 3; }
//
// Every decoder returns nothing or false if the message is malformed, gives a known field a wrong
// wire type, or repeats a singular field. TensorFlow writes none of these.
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

// Returns the meta in the value of the empty key. Returns nothing if the value has other contents.
std::optional<ByteSpan> DecodeMetaValue(ByteSpan value);

// SavedTensorSliceMeta, with its fields not yet decoded. Lifetime: borrowed from the message.
struct SliceMetaList {
  std::vector<ByteSpan> tensors;
  std::optional<ByteSpan> versions;  // absent in checkpoints of old TensorFlow versions
};
std::optional<SliceMetaList> DecodeSliceMetaList(ByteSpan message);

// SavedSliceMeta: a tensor and its slices in one file.
struct SliceMeta {
  std::string_view name;  // borrowed; never empty
  int32_t dtype = 0;
  std::vector<int64_t> dims;  // none for a scalar
  // num_slices times `dims.size()` encoded extents.
  uint64_t num_slices = 0;
  std::vector<Extent> slice_extents;

  void Clear();  // keeps the memory of the vectors
};

// Returns false also for an unknown rank, and if the rank of a slice differs from that of the
// shape.
bool DecodeSliceMeta(ByteSpan message, SliceMeta* meta);

// Returns the name of a SavedSliceMeta without decoding the rest.
std::optional<std::string_view> DecodeSliceMetaName(ByteSpan message);

// SavedSlice, in the value of any other key.
struct SavedSlice {
  std::string_view name;        // borrowed
  std::vector<Extent> extents;  // as encoded
  ByteSpan values;              // TensorProto; borrowed
};
std::optional<SavedSlice> DecodeSavedSlice(ByteSpan value);

// Returns the bytes before the payload of a record that TensorFlow writes for elements in one
// packed field. A record that starts with them and has `payload_size` more bytes has its payload
// there. The same record may also be encoded in other ways.
std::string PackedRecordHead(std::string_view name, EncodedSlice slice, uint32_t value_field,
                             uint64_t payload_size);

// Restores the encoded slices of a catalog. The key of a slice contains its extents as the writer
// encoded them, with a whole axis in one of two ways. The catalog has normalized extents; this
// remembers which of them were encoded as a whole axis. A slice without extents in the catalog was
// encoded as whole axes only.
class SliceEncodings {
 public:
  // Appends the encoding of the extents that were appended to the catalog.
  void Append(EncodedSlice slice) {
    for (const Extent& extent : slice) whole_axis_.push_back(extent.length == kFullLength);
  }

  // Returns the encoded extents of a slice. `extents` are those of the catalog.
  std::vector<Extent> Encode(std::span<const Extent> extents, const Tensor& tensor,
                             const StoredSlice& slice) const;

  // Returns the key of the record of a slice.
  std::string Key(std::span<const Extent> extents, const Tensor& tensor,
                  const StoredSlice& slice) const;

 private:
  std::vector<bool> whole_axis_;  // per extent of the catalog
};

}  // namespace tensorbundle
