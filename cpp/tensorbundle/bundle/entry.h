// SPDX-License-Identifier: Apache-2.0
// One record of a V2 index: BundleEntryProto in tensorflow/core/protobuf/tensor_bundle.proto, and
// the messages inside it that V1 checkpoints share.
#pragma once

#include <cstdint>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/extent.h"

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

}  // namespace tensorbundle
