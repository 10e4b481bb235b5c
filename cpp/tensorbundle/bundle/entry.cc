// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/entry.h"

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/wire.h"

namespace tensorbundle {
namespace {

// Field numbers of the messages, outermost first.
namespace entry_field {
constexpr uint32_t kDtype = 1, kShape = 2, kShard = 3, kOffset = 4, kSize = 5, kCrc32c = 6,
                   kSlices = 7;
}
namespace shape_field {
constexpr uint32_t kDim = 2, kUnknownRank = 3;
}
namespace dim_field {
constexpr uint32_t kSize = 1;
}
namespace slice_field {
constexpr uint32_t kExtent = 1;
}
namespace extent_field {
constexpr uint32_t kStart = 1, kLength = 2;
}

bool DecodeDim(ByteSpan message, int64_t* size) {
  WireReader reader(message);
  WireField field;
  bool seen = false;
  *size = 0;
  while (reader.Next(&field)) {
    if (field.number != dim_field::kSize) continue;  // the name is not used, whatever bytes it has
    if (field.type != WireType::kVarint || seen) return false;
    seen = true;
    *size = AsInt64(field.value);
  }
  return reader.ok();
}

bool DecodeExtent(ByteSpan message, Extent* extent) {
  WireReader reader(message);
  WireField field;
  bool has_start = false;
  bool has_length = false;
  *extent = {0, kFullLength};  // without a length: the whole axis
  while (reader.Next(&field)) {
    if (field.number == extent_field::kStart) {
      if (field.type != WireType::kVarint || has_start) return false;
      has_start = true;
      extent->start = AsInt64(field.value);
    } else if (field.number == extent_field::kLength) {
      if (field.type != WireType::kVarint || has_length) return false;
      has_length = true;
      extent->length = AsInt64(field.value);
    }
  }
  return reader.ok();
}

// Stores one known field of an entry. False when it does not fit.
bool StoreField(const WireField& field, BundleEntry* entry, bool* ranks_agree, size_t* slice_rank) {
  switch (field.number) {
    case entry_field::kDtype:
      return AsInt32(field.value, &entry->dtype);
    case entry_field::kShape:
      return DecodeShape(field.bytes, &entry->dims);
    case entry_field::kShard:
      return AsInt32(field.value, &entry->shard);
    case entry_field::kOffset:
      entry->offset = AsInt64(field.value);
      return true;
    case entry_field::kSize:
      entry->size = AsInt64(field.value);
      return true;
    case entry_field::kCrc32c:
      entry->has_checksum = true;
      entry->masked_checksum = static_cast<uint32_t>(field.value);
      return true;
    default: {  // kSlices
      size_t rank = 0;
      if (!DecodeSlice(field.bytes, &entry->slice_extents, &rank)) return false;
      *ranks_agree &= entry->num_slices == 0 || rank == *slice_rank;
      *slice_rank = rank;
      ++entry->num_slices;
      return true;
    }
  }
}

WireType WantedType(uint32_t number) {
  switch (number) {
    case entry_field::kShape:
    case entry_field::kSlices:
      return WireType::kBytes;
    case entry_field::kCrc32c:
      return WireType::kFixed32;
    default:
      return WireType::kVarint;
  }
}

// The short cuts: what TensorFlow writes for nearly every record, byte for byte, decoded without
// asking at each field which one it is. They say no to everything else, right or wrong; then the
// general decoders below decide.
constexpr uint8_t Tag(uint32_t number, WireType type) {
  return static_cast<uint8_t>(number << 3 | static_cast<uint8_t>(type));
}

// Reads a varint field if it is the next one. False when it is there and malformed.
bool TakeVarint(uint8_t tag, const uint8_t** p, const uint8_t* limit, uint64_t* value) {
  if (*p == limit || **p != tag) return true;
  *p = DecodeVarint64(*p + 1, limit, value);
  return *p != nullptr;
}

// A shape whose dimensions have a size and nothing else.
bool DecodeUsualShape(const uint8_t* p, const uint8_t* limit, std::vector<int64_t>* dims) {
  size_t rank = 0;
  while (p < limit) {
    if (limit - p < 4 || p[0] != Tag(shape_field::kDim, WireType::kBytes) || p[1] < 2 ||
        p[1] >= 0x80 || p[1] > limit - p - 2 || p[2] != Tag(dim_field::kSize, WireType::kVarint) ||
        ++rank > kMaxRank) {
      return false;
    }
    const uint8_t* const end = p + 2 + p[1];
    uint64_t size = 0;
    p = DecodeVarint64(p + 3, end, &size);
    if (p != end) return false;
    dims->push_back(AsInt64(size));
  }
  return true;
}

// A tensor that is not partitioned: its fields in ascending order, those that are 0 left out.
bool DecodeUsualEntry(ByteSpan message, BundleEntry* entry) {
  const uint8_t* p = message.data();
  const uint8_t* const limit = p + message.size();
  uint64_t dtype = 0;
  uint64_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  if (!TakeVarint(Tag(entry_field::kDtype, WireType::kVarint), &p, limit, &dtype)) return false;
  if (limit - p < 2 || p[0] != Tag(entry_field::kShape, WireType::kBytes) || p[1] >= 0x80 ||
      limit - p - 2 < p[1]) {
    return false;
  }
  const uint8_t* const shape_end = p + 2 + p[1];
  if (!DecodeUsualShape(p + 2, shape_end, &entry->dims)) return false;
  p = shape_end;
  if (!TakeVarint(Tag(entry_field::kShard, WireType::kVarint), &p, limit, &shard) ||
      !TakeVarint(Tag(entry_field::kOffset, WireType::kVarint), &p, limit, &offset) ||
      !TakeVarint(Tag(entry_field::kSize, WireType::kVarint), &p, limit, &size)) {
    return false;
  }
  entry->has_checksum = limit - p == 5 && p[0] == Tag(entry_field::kCrc32c, WireType::kFixed32);
  if (!entry->has_checksum && p != limit) return false;
  if (entry->has_checksum) entry->masked_checksum = LoadFixed32(p + 1);
  entry->offset = AsInt64(offset);
  entry->size = AsInt64(size);
  return AsInt32(dtype, &entry->dtype) && AsInt32(shard, &entry->shard);
}

}  // namespace

void BundleEntry::Clear() {
  dtype = 0;
  dims.clear();
  shard = 0;
  offset = 0;
  size = 0;
  has_checksum = false;
  masked_checksum = 0;
  num_slices = 0;
  slice_extents.clear();
}

bool DecodeShape(ByteSpan message, std::vector<int64_t>* dims) {
  WireReader reader(message);
  WireField field;
  size_t rank = 0;
  while (reader.Next(&field)) {
    if (field.number == shape_field::kUnknownRank) {
      if (field.type != WireType::kVarint || field.value != 0) return false;
    } else if (field.number == shape_field::kDim) {
      int64_t size = 0;
      if (field.type != WireType::kBytes || ++rank > kMaxRank || !DecodeDim(field.bytes, &size)) {
        return false;
      }
      dims->push_back(size);
    }
  }
  return reader.ok();
}

bool DecodeSlice(ByteSpan message, std::vector<Extent>* extents, size_t* rank) {
  WireReader reader(message);
  WireField field;
  *rank = 0;
  while (reader.Next(&field)) {
    if (field.number != slice_field::kExtent) continue;
    Extent extent;
    if (field.type != WireType::kBytes || ++*rank > kMaxRank ||
        !DecodeExtent(field.bytes, &extent)) {
      return false;
    }
    extents->push_back(extent);
  }
  return reader.ok();
}

bool DecodeBundleEntry(ByteSpan message, BundleEntry* entry) {
  entry->Clear();
  if (DecodeUsualEntry(message, entry)) return true;
  entry->Clear();
  WireReader reader(message);
  WireField field;
  uint32_t seen = 0;
  bool ranks_agree = true;
  size_t slice_rank = 0;
  while (reader.Next(&field)) {
    if (field.number > entry_field::kSlices) continue;
    const uint32_t bit = 1U << field.number;
    const bool repeatable = field.number == entry_field::kSlices;
    if (field.type != WantedType(field.number) || (!repeatable && (seen & bit) != 0)) return false;
    seen |= bit;
    if (!StoreField(field, entry, &ranks_agree, &slice_rank)) return false;
  }
  return reader.ok() && ranks_agree && (entry->num_slices == 0 || slice_rank == entry->dims.size());
}

}  // namespace tensorbundle
