// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/messages.h"

#include <span>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/wire.h"

namespace tensorbundle {
namespace {

// Field numbers.
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
namespace header_field {
constexpr uint32_t kNumShards = 1, kEndianness = 2, kVersion = 3;
}
namespace version_field {
constexpr uint32_t kProducer = 1, kMinConsumer = 2, kBadConsumers = 3;
}
namespace graph_field {
constexpr uint32_t kNodes = 1, kAttributes = 2, kFullName = 2, kCheckpointKey = 3;
}

constexpr int32_t kReaderVersion = 1;

// ---- Entries.

bool DecodeDim(ByteSpan message, int64_t* size) {
  WireReader reader(message);
  WireField field;
  bool seen = false;
  *size = 0;
  while (reader.Next(&field)) {
    if (field.number != dim_field::kSize) continue;  // ignores the name, even with a wrong type
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

// Stores one known field of an entry. Returns false if it is invalid.
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

// A fast path for the encoding that TensorFlow uses for nearly every record, with the fields in a
// known order. It rejects every other record, valid or not; then the general decoders decide.
constexpr uint8_t Tag(uint32_t number, WireType type) {
  return static_cast<uint8_t>(number << 3 | static_cast<uint8_t>(type));
}

// Reads a varint field if it is the next one. Returns false if it is there and malformed.
bool ReadVarintField(uint8_t tag, const uint8_t** p, const uint8_t* limit, uint64_t* value) {
  if (*p == limit || **p != tag) return true;
  *p = DecodeVarint64(*p + 1, limit, value);
  return *p != nullptr;
}

// Decodes a shape whose dimensions have a size and nothing else.
bool DecodeShapeFast(const uint8_t* p, const uint8_t* limit, std::vector<int64_t>* dims) {
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

// Decodes a record without slices: fields in ascending order, without those that are 0.
bool DecodeEntryFast(ByteSpan message, BundleEntry* entry) {
  const uint8_t* p = message.data();
  const uint8_t* const limit = p + message.size();
  uint64_t dtype = 0;
  uint64_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  if (!ReadVarintField(Tag(entry_field::kDtype, WireType::kVarint), &p, limit, &dtype))
    return false;
  if (limit - p < 2 || p[0] != Tag(entry_field::kShape, WireType::kBytes) || p[1] >= 0x80 ||
      limit - p - 2 < p[1]) {
    return false;
  }
  const uint8_t* const shape_end = p + 2 + p[1];
  if (!DecodeShapeFast(p + 2, shape_end, &entry->dims)) return false;
  p = shape_end;
  if (!ReadVarintField(Tag(entry_field::kShard, WireType::kVarint), &p, limit, &shard) ||
      !ReadVarintField(Tag(entry_field::kOffset, WireType::kVarint), &p, limit, &offset) ||
      !ReadVarintField(Tag(entry_field::kSize, WireType::kVarint), &p, limit, &size)) {
    return false;
  }
  entry->has_checksum = limit - p == 5 && p[0] == Tag(entry_field::kCrc32c, WireType::kFixed32);
  if (!entry->has_checksum && p != limit) return false;
  if (entry->has_checksum) entry->masked_checksum = LoadFixed32(p + 1);
  entry->offset = AsInt64(offset);
  entry->size = AsInt64(size);
  return AsInt32(dtype, &entry->dtype) && AsInt32(shard, &entry->shard);
}

// Appends a number, unless it is zero: proto3 omits zeros.
void PutNumber(uint32_t number, int64_t value, std::string* out) {
  if (value == 0) return;
  PutTag(number, WireType::kVarint, out);
  PutVarint64(static_cast<uint64_t>(value), out);
}

// ---- Header and version.

// Sets `listed` if bad_consumers, packed or not, contains kReaderVersion. Returns false if the
// field is malformed.
bool ListsReaderVersion(const WireField& field, bool* listed) {
  int32_t version = 0;
  if (field.type == WireType::kVarint) {
    if (!AsInt32(field.value, &version)) return false;
    *listed |= version == kReaderVersion;
    return true;
  }
  if (field.type != WireType::kBytes) return false;
  const uint8_t* p = field.bytes.data();
  const uint8_t* limit = p + field.bytes.size();
  while (p != limit) {
    uint64_t value = 0;
    p = DecodeVarint64(p, limit, &value);
    if (p == nullptr || !AsInt32(value, &version)) return false;
    *listed |= version == kReaderVersion;
  }
  return true;
}

[[noreturn]] void ThrowBadHeader(const std::string& path, const std::string& what) {
  throw CorruptionError(path + ": bad bundle header: " + what);
}

// ---- Object graph.

void AddAttribute(ByteSpan attribute, FullNameList* list) {
  std::string_view full_name;
  std::string_view key;
  WireReader reader(attribute);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(graph_field::kFullName, WireType::kBytes)) full_name = AsText(field.bytes);
    if (field.Is(graph_field::kCheckpointKey, WireType::kBytes)) key = AsText(field.bytes);
  }
  list->complete &= reader.ok();
  if (reader.ok() && !full_name.empty() && !key.empty()) list->names.emplace_back(full_name, key);
}

}  // namespace

// ---- Entries.

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
  if (DecodeEntryFast(message, entry)) return true;
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

std::string EncodeBundleEntry(const BundleEntry& entry) {
  std::string record;
  std::string message;  // of the shape, then of each slice
  std::string part;
  PutNumber(entry_field::kDtype, entry.dtype, &record);
  for (const int64_t dim : entry.dims) {
    part.clear();
    PutNumber(dim_field::kSize, dim, &part);
    PutBytes(shape_field::kDim, part, &message);
  }
  PutBytes(entry_field::kShape, message, &record);
  PutNumber(entry_field::kShard, entry.shard, &record);
  PutNumber(entry_field::kOffset, entry.offset, &record);
  PutNumber(entry_field::kSize, entry.size, &record);
  if (entry.masked_checksum != 0) {
    PutTag(entry_field::kCrc32c, WireType::kFixed32, &record);
    PutFixed32(entry.masked_checksum, &record);
  }
  const size_t rank = entry.dims.size();
  for (uint64_t i = 0; i < entry.num_slices; ++i) {
    message.clear();
    for (const Extent& extent : std::span(entry.slice_extents).subspan(i * rank, rank)) {
      part.clear();
      if (extent.length != kFullLength) {
        PutNumber(extent_field::kStart, extent.start, &part);
        PutTag(extent_field::kLength, WireType::kVarint, &part);  // in a oneof: also if it is zero
        PutVarint64(static_cast<uint64_t>(extent.length), &part);
      }
      PutBytes(slice_field::kExtent, part, &message);
    }
    PutBytes(entry_field::kSlices, message, &record);
  }
  return record;
}

std::string WithOffset(ByteSpan record, uint64_t offset) {
  std::string result;
  bool placed = offset == 0;  // proto3 omits zeros
  const auto place = [&] {
    PutTag(entry_field::kOffset, WireType::kVarint, &result);
    PutVarint64(offset, &result);
    placed = true;
  };
  WireReader reader(record);
  WireField field;
  while (reader.Next(&field)) {
    if (field.number == entry_field::kOffset) continue;
    if (!placed && field.number > entry_field::kOffset) place();  // in the order of all writers
    PutField(field, &result);
  }
  if (!placed) place();
  return result;
}

// ---- Header and version.

void CheckVersion(ByteSpan version_def, const std::string& path) {
  int32_t producer = 0;
  int32_t min_consumer = 0;
  bool is_bad = false;
  WireReader reader(version_def);
  WireField field;
  bool ok = true;
  while (ok && reader.Next(&field)) {
    if (field.number == version_field::kProducer || field.number == version_field::kMinConsumer) {
      ok = field.type == WireType::kVarint &&
           AsInt32(field.value,
                   field.number == version_field::kProducer ? &producer : &min_consumer);
    } else if (field.number == version_field::kBadConsumers) {
      ok = ListsReaderVersion(field, &is_bad);
    }
  }
  if (!ok || !reader.ok()) throw CorruptionError(path + ": its version is malformed");
  if (producer < 0) {
    throw CorruptionError(path + ": its producer's version " + std::to_string(producer) +
                          " is negative");
  }
  if (min_consumer > kReaderVersion) {
    throw UnsupportedError(path + " needs a reader of checkpoint version " +
                           std::to_string(min_consumer) + ", this one reads version " +
                           std::to_string(kReaderVersion));
  }
  if (is_bad) {
    throw UnsupportedError(path + ": its writer excludes readers of checkpoint version " +
                           std::to_string(kReaderVersion) + ", such as this one");
  }
}

BundleHeader DecodeBundleHeader(ByteSpan message, const std::string& path) {
  BundleHeader header;
  uint64_t endianness = 0;
  WireReader reader(message);
  WireField field;
  uint32_t seen = 0;
  while (reader.Next(&field)) {
    if (field.number < header_field::kNumShards || field.number > header_field::kVersion) continue;
    const WireType wanted =
        field.number == header_field::kVersion ? WireType::kBytes : WireType::kVarint;
    const uint32_t bit = 1U << field.number;
    if (field.type != wanted || (seen & bit) != 0) {
      ThrowBadHeader(path, "field " + std::to_string(field.number) + " is repeated or mistyped");
    }
    seen |= bit;
    if (field.number == header_field::kNumShards && !AsInt32(field.value, &header.num_shards)) {
      ThrowBadHeader(path, "the number of shards is not an int32");
    }
    if (field.number == header_field::kEndianness) endianness = field.value;
    if (field.number == header_field::kVersion) CheckVersion(field.bytes, path);
  }
  if (!reader.ok()) ThrowBadHeader(path, "it is not a protobuf message");
  if (header.num_shards < 1 || header.num_shards > kMaxShards) {
    ThrowBadHeader(path, "it names " + std::to_string(header.num_shards) +
                             " shards, expected 1 to " + std::to_string(kMaxShards));
  }
  if (endianness > 1) {
    ThrowBadHeader(path,
                   "unknown byte order " + std::to_string(endianness) + " (0 is little, 1 is big)");
  }
  header.big_endian = endianness == 1;
  return header;
}

std::string EncodeBundleHeader(const BundleHeader& header) {
  std::string version;
  PutNumber(version_field::kProducer, kReaderVersion, &version);
  std::string record;
  PutNumber(header_field::kNumShards, header.num_shards, &record);
  PutNumber(header_field::kEndianness, header.big_endian ? 1 : 0, &record);
  PutBytes(header_field::kVersion, version, &record);
  return record;
}

// ---- Object graph.

FullNameList FullNames(ByteSpan object_graph) {
  FullNameList list;
  WireReader graph(object_graph);
  WireField node;
  while (graph.Next(&node)) {
    if (!node.Is(graph_field::kNodes, WireType::kBytes)) continue;
    WireReader reader(node.bytes);
    WireField attribute;
    while (reader.Next(&attribute)) {
      if (attribute.Is(graph_field::kAttributes, WireType::kBytes))
        AddAttribute(attribute.bytes, &list);
    }
    list.complete &= reader.ok();
  }
  list.complete &= graph.ok();
  return list;
}

}  // namespace tensorbundle
