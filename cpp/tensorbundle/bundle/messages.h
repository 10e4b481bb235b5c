// SPDX-License-Identifier: Apache-2.0
// One record of a V2 index: BundleEntryProto in tensorflow/core/protobuf/tensor_bundle.proto, and
// the messages inside it that V1 checkpoints share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

inline constexpr size_t kMaxRank = 254;  // TensorFlow's own limit

// A record as the file spells it; nothing is checked against anything outside the record.
struct BundleEntry {
  int32_t dtype = 0;
  std::vector<int64_t> dims;  // a record without a shape is a scalar
  int32_t shard = 0;
  int64_t offset = 0;
  int64_t size = 0;
  bool has_checksum = false;
  uint32_t masked_checksum = 0;
  // Slices of a partitioned tensor: num_slices times their extents, one behind the other, as
  // spelled.
  uint64_t num_slices = 0;
  std::vector<Extent> slice_extents;

  void Clear();  // keeps the vectors' memory
};

// Decodes a record. False when it is malformed, uses a wrong wire type for a known field, repeats a
// singular field, has a number out of its type's range, an unknown rank, a rank above kMaxRank or
// slices of another rank than their shape: no TensorFlow writes any of these.
bool DecodeBundleEntry(ByteSpan message, BundleEntry* entry);

// TensorShapeProto; appends to `dims`.
bool DecodeShape(ByteSpan message, std::vector<int64_t>* dims);

// TensorSliceProto; appends one extent per axis as spelled, and counts them.
bool DecodeSlice(ByteSpan message, std::vector<Extent>* extents, size_t* rank);

// The header of a V2 checkpoint: the value of the empty key, BundleHeaderProto in
// tensorflow/core/protobuf/tensor_bundle.proto.

// Each shard that holds something is opened. No writer makes near as many.
inline constexpr int32_t kMaxShards = 100'000;

struct BundleHeader {
  int32_t num_shards = 0;
  bool big_endian = false;  // of tensor bytes only; the index itself is always little-endian
};

// Checks a serialized VersionDef against what we read (TF_CHECKPOINT_VERSION 1, no oldest
// producer). Throws CorruptionError when it is malformed and UnsupportedError when it excludes us,
// naming `path`.
void CheckVersion(ByteSpan version_def, const std::string& path);

// Throws CorruptionError or UnsupportedError (a version that this reader is too old for), naming
// `path`.
BundleHeader DecodeBundleHeader(ByteSpan message, const std::string& path);

// The object graph that tf.train.Checkpoint stores beside its tensors, for the names in it:
// tensorflow/core/protobuf/trackable_object_graph.proto.

// The tensor that holds the serialized graph.
inline constexpr std::string_view kObjectGraphKey = "_CHECKPOINTABLE_OBJECT_GRAPH";

// What names an object graph gives to tensors.
struct FullNameList {
  // (full_name, checkpoint_key) of every attribute that has both, in the order of the graph. The
  // same name may have several keys. Both are borrowed from the message.
  std::vector<std::pair<std::string_view, std::string_view>> names;
  // False when parts of the message are malformed: they were left out, and names may be missing.
  bool complete = true;
};

// Reads the names in one flat pass over the nodes: cycles and sharing cannot matter.
FullNameList FullNames(ByteSpan object_graph);

// Index records with their tensor moved.

// A BundleEntryProto that DecodeBundleEntry accepts, with another offset. Every other field is as
// it was, those that we do not know among them.
std::string WithOffset(ByteSpan record, uint64_t offset);

}  // namespace tensorbundle
