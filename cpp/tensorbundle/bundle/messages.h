// SPDX-License-Identifier: Apache-2.0
// The protobuf messages of a V2 index:
//
//   BundleHeaderProto     { num_shards = 1;  endianness = 2;  VersionDef version = 3; }
//   BundleEntryProto      { dtype = 1;  TensorShapeProto shape = 2;  shard_id = 3;  offset = 4;
//                           size = 5;  fixed32 crc32c = 6;  repeated TensorSliceProto slices = 7; }
//   TrackableObjectGraph  { repeated node = 1 { repeated attributes = 2 { full_name = 2;
//                           checkpoint_key = 3; } } }
//
// (tensorflow/core/protobuf/tensor_bundle.proto, trackable_object_graph.proto). V1 checkpoints
// share TensorShapeProto, TensorSliceProto and VersionDef.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// ---- Entries: the records of tensors and of stored slices.

inline constexpr size_t kMaxRank = 254;  // TensorFlow's own limit

// A record as it is encoded in the file. Nothing in it has been checked against other records.
struct BundleEntry {
  int32_t dtype = 0;
  std::vector<int64_t> dims;  // empty for a scalar
  int32_t shard = 0;
  int64_t offset = 0;
  int64_t size = 0;
  bool has_checksum = false;
  uint32_t masked_checksum = 0;
  // The stored slices of a partitioned tensor: num_slices times `dims.size()` encoded extents.
  uint64_t num_slices = 0;
  std::vector<Extent> slice_extents;

  void Clear();  // keeps the memory of the vectors
};

// Decodes a record. Returns false if it is malformed, gives a known field a wrong wire type,
// repeats a singular field, or has a number out of the range of its type, an unknown rank, a rank
// above kMaxRank, or slices whose rank differs from that of the shape. TensorFlow writes none of
// these.
bool DecodeBundleEntry(ByteSpan message, BundleEntry* entry);

// Decodes a TensorShapeProto and appends its dimensions. Returns false if it is malformed.
bool DecodeShape(ByteSpan message, std::vector<int64_t>* dims);

// Decodes a TensorSliceProto, appends one encoded extent per axis, and sets `rank` to their number.
// Returns false if it is malformed.
bool DecodeSlice(ByteSpan message, std::vector<Extent>* extents, size_t* rank);

// Returns the bytes that TensorFlow writes for a record: fields in ascending order, without zeros.
// Requires: the extents of slices are normalized or {0, kFullLength}.
std::string EncodeBundleEntry(const BundleEntry& entry);

// Returns a record with another offset. Every other field is unchanged, also the unknown ones.
// Requires: DecodeBundleEntry accepts the record.
std::string WithOffset(ByteSpan record, uint64_t offset);

// ---- The header: the value of the empty key.

// Every shard that holds a slice is opened. No known writer makes nearly as many.
inline constexpr int32_t kMaxShards = 100'000;

struct BundleHeader {
  int32_t num_shards = 0;
  bool big_endian = false;  // of tensor bytes only; the index itself is always little-endian
};

// Decodes the header of the index `path`.
// Throws: CorruptionError; UnsupportedError if its version excludes this reader.
BundleHeader DecodeBundleHeader(ByteSpan message, const std::string& path);

// Returns the header that TensorFlow writes.
std::string EncodeBundleHeader(const BundleHeader& header);

// Checks a VersionDef of the file `path` against the version of this reader,
// TF_CHECKPOINT_VERSION 1. Throws: CorruptionError if it is malformed; UnsupportedError if it
// excludes this reader.
void CheckVersion(ByteSpan version_def, const std::string& path);

// ---- The object graph, which tf.train.Checkpoint stores as a string tensor.

// The name of that tensor.
inline constexpr std::string_view kObjectGraphKey = "_CHECKPOINTABLE_OBJECT_GRAPH";

// The full names that an object graph gives to tensors.
struct FullNameList {
  // (full_name, checkpoint_key) of every attribute that has both, in the order of the graph. One
  // full name may have several keys. Lifetime: borrowed from the message.
  std::vector<std::pair<std::string_view, std::string_view>> names;
  // False if parts of the message are malformed: names in these parts are missing.
  bool complete = true;
};

// Reads the names in one pass over the nodes. References between nodes are not followed.
FullNameList FullNames(ByteSpan object_graph);

}  // namespace tensorbundle
