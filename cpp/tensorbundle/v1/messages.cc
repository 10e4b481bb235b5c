// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/messages.h"

#include "tensorbundle/base/wire.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/bundle/slice_key.h"

namespace tensorbundle {
namespace {

// Field numbers of the messages, outermost first.
namespace slices_field {
constexpr uint32_t kMeta = 1, kData = 2;
}
namespace meta_list_field {
constexpr uint32_t kTensor = 1, kVersions = 2;
}
namespace meta_field {
constexpr uint32_t kName = 1, kShape = 2, kType = 3, kSlice = 4;
}
namespace slice_field {
constexpr uint32_t kName = 1, kSlice = 2, kData = 3;
}
// TensorSliceProto and TensorSliceProto.Extent, for encoding; bundle/messages.cc decodes them.
namespace extents_field {
constexpr uint32_t kExtent = 1, kStart = 1, kLength = 2;
}

// Detects the fields that a message has more than once.
class SeenFields {
 public:
  // Whether this is the first field with this number. Requires: number < 32.
  bool First(uint32_t number) {
    const uint32_t bit = 1U << number;
    const bool first = (bits_ & bit) == 0;
    bits_ |= bit;
    return first;
  }
  bool Has(uint32_t number) const { return (bits_ & (1U << number)) != 0; }

 private:
  uint32_t bits_ = 0;
};

// Returns the message in field `wanted` of a SavedTensorSlices, if it is the only one.
std::optional<ByteSpan> DecodeTensorSlices(ByteSpan value, uint32_t wanted) {
  WireReader reader(value);
  WireField field;
  ByteSpan message;
  bool found = false;
  while (reader.Next(&field)) {
    if (field.number > slices_field::kData) continue;
    if (field.number != wanted || field.type != WireType::kBytes || found) return std::nullopt;
    found = true;
    message = field.bytes;
  }
  if (!reader.ok() || !found) return std::nullopt;
  return message;
}

// Stores one known field of a SavedSliceMeta. Returns false if it is invalid.
bool StoreMetaField(const WireField& field, SliceMeta* meta, bool* ranks_agree,
                    size_t* slice_rank) {
  if (field.number == meta_field::kType) {
    return field.type == WireType::kVarint && AsInt32(field.value, &meta->dtype);
  }
  if (field.type != WireType::kBytes) return false;
  if (field.number == meta_field::kShape) return DecodeShape(field.bytes, &meta->dims);
  if (field.number == meta_field::kName) {
    meta->name = AsText(field.bytes);
    return !meta->name.empty();
  }
  size_t rank = 0;
  if (!DecodeSlice(field.bytes, &meta->slice_extents, &rank)) return false;
  *ranks_agree &= meta->num_slices == 0 || rank == *slice_rank;
  *slice_rank = rank;
  ++meta->num_slices;
  return true;
}

size_t VarintSize(uint64_t value) {
  size_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}

// Encodes a TensorSliceProto: omits a start of 0 and the length of a whole axis.
std::string EncodeSliceProto(EncodedSlice slice) {
  std::string message;
  for (const Extent& extent : slice) {
    std::string inner;
    if (extent.start != 0) {
      PutTag(extents_field::kStart, WireType::kVarint, &inner);
      PutVarint64(static_cast<uint64_t>(extent.start), &inner);
    }
    if (extent.length != kFullLength) {
      PutTag(extents_field::kLength, WireType::kVarint, &inner);
      PutVarint64(static_cast<uint64_t>(extent.length), &inner);
    }
    PutBytes(extents_field::kExtent, inner, &message);
  }
  return message;
}

}  // namespace

std::optional<ByteSpan> DecodeMetaValue(ByteSpan value) {
  return DecodeTensorSlices(value, slices_field::kMeta);
}

std::optional<SliceMetaList> DecodeSliceMetaList(ByteSpan message) {
  SliceMetaList list;
  WireReader reader(message);
  WireField field;
  SeenFields seen;
  while (reader.Next(&field)) {
    if (field.number > meta_list_field::kVersions) continue;
    if (field.type != WireType::kBytes) return std::nullopt;
    if (field.number == meta_list_field::kTensor) {
      list.tensors.push_back(field.bytes);
    } else {
      if (!seen.First(field.number)) return std::nullopt;
      list.versions = field.bytes;
    }
  }
  if (!reader.ok()) return std::nullopt;
  return list;
}

void SliceMeta::Clear() {
  name = {};
  dtype = 0;
  dims.clear();
  num_slices = 0;
  slice_extents.clear();
}

bool DecodeSliceMeta(ByteSpan message, SliceMeta* meta) {
  meta->Clear();
  WireReader reader(message);
  WireField field;
  SeenFields seen;
  bool ranks_agree = true;
  size_t slice_rank = 0;
  while (reader.Next(&field)) {
    if (field.number > meta_field::kSlice) continue;
    if (field.number != meta_field::kSlice && !seen.First(field.number)) return false;
    if (!StoreMetaField(field, meta, &ranks_agree, &slice_rank)) return false;
  }
  return reader.ok() && ranks_agree && seen.Has(meta_field::kName) &&
         (meta->num_slices == 0 || slice_rank == meta->dims.size());
}

std::optional<std::string_view> DecodeSliceMetaName(ByteSpan message) {
  WireReader reader(message);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(meta_field::kName, WireType::kBytes) && !field.bytes.empty()) {
      return AsText(field.bytes);
    }
  }
  return std::nullopt;
}

std::optional<SavedSlice> DecodeSavedSlice(ByteSpan value) {
  const std::optional<ByteSpan> message = DecodeTensorSlices(value, slices_field::kData);
  if (!message) return std::nullopt;
  SavedSlice slice;
  WireReader reader(*message);
  WireField field;
  SeenFields seen;
  while (reader.Next(&field)) {
    if (field.number > slice_field::kData) continue;
    if (field.type != WireType::kBytes || !seen.First(field.number)) return std::nullopt;
    if (field.number == slice_field::kName) slice.name = AsText(field.bytes);
    if (field.number == slice_field::kData) slice.values = field.bytes;
    size_t rank = 0;
    if (field.number == slice_field::kSlice && !DecodeSlice(field.bytes, &slice.extents, &rank)) {
      return std::nullopt;
    }
  }
  if (!reader.ok() || !seen.Has(slice_field::kData)) return std::nullopt;
  return slice;
}

std::string PackedRecordHead(std::string_view name, EncodedSlice slice, uint32_t value_field,
                             uint64_t payload_size) {
  std::string values_head;  // of TensorProto
  PutTag(value_field, WireType::kBytes, &values_head);
  PutVarint64(payload_size, &values_head);
  const uint64_t values_size = values_head.size() + payload_size;

  std::string slice_head;  // of SavedSlice
  PutBytes(slice_field::kName, name, &slice_head);
  PutBytes(slice_field::kSlice, EncodeSliceProto(slice), &slice_head);
  PutTag(slice_field::kData, WireType::kBytes, &slice_head);
  const uint64_t slice_size = slice_head.size() + VarintSize(values_size) + values_size;

  std::string head;
  PutTag(slices_field::kData, WireType::kBytes, &head);
  PutVarint64(slice_size, &head);
  head.append(slice_head);
  PutVarint64(values_size, &head);
  return head.append(values_head);
}

std::vector<Extent> SliceEncodings::Encode(std::span<const Extent> extents, const Tensor& tensor,
                                           const StoredSlice& slice) const {
  std::vector<Extent> encoded(tensor.rank, Extent{0, kFullLength});
  if (slice.first_extent == StoredSlice::kWholeTensor) return encoded;
  for (size_t axis = 0; axis < encoded.size(); ++axis) {
    const uint64_t at = slice.first_extent + axis;
    if (!whole_axis_[at]) encoded[axis] = extents[at];
  }
  return encoded;
}

std::string SliceEncodings::Key(std::span<const Extent> extents, const Tensor& tensor,
                                const StoredSlice& slice) const {
  return SliceKey(tensor.name, Encode(extents, tensor, slice));
}

}  // namespace tensorbundle
