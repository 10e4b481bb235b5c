// SPDX-License-Identifier: Apache-2.0
// From a prefix and a name to a tensor that can be read, the index being parsed once per process
// and version of the file.
#pragma once

#include <memory>
#include <string>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/extent.h"
#include "tensorflow_op/c_api.h"

namespace tensorbundle::op {

// Keeps the tensor's files open while it lives, and nothing longer: of a V2 checkpoint the process
// remembers the index, never a data file. (V1 keeps tensors and index in one file: the one or two
// opened last stay open.)
struct OpenTensor {
  std::shared_ptr<const Checkpoint> checkpoint;
  const Tensor* tensor;  // of the checkpoint

  std::span<const int64_t> shape() const { return checkpoint->catalog().Shape(*tensor); }
};

// `prefix` is that of a V2 checkpoint, or, where there is no "<prefix>.index", a V1 file or the
// pattern "<name>-?????-of-NNNNN" of its shards. Throws OpError, in TensorFlow's words, when there
// is no such checkpoint or tensor, or it is not of that type; CorruptionError when it is replaced
// again and again; as ReadBundleIndex and OpenV1.
OpenTensor Open(const std::string& prefix, const std::string& name, TypeNumber type, IoMode mode);

// "float", "int32", as TensorFlow's messages spell types.
std::string TypeText(TypeNumber type);

}  // namespace tensorbundle::op
