// SPDX-License-Identifier: Apache-2.0
// The header of a V2 checkpoint: the value of the empty key, BundleHeaderProto in
// tensorflow/core/protobuf/tensor_bundle.proto.
#pragma once

#include <cstdint>
#include <string>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

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

}  // namespace tensorbundle
