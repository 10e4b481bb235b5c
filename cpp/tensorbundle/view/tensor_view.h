// SPDX-License-Identifier: Apache-2.0
// Tensors as the memory they are mapped to.
#pragma once

#include <cstdint>
#include <memory>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

// Row-major, native-endian elements at whatever alignment the file gives them. `owner` keeps them
// mapped.
struct TensorView {
  std::shared_ptr<const Mapping> owner;
  ByteSpan bytes;
  const char* why_not = nullptr;  // set instead of the others when there can be no view

  explicit operator bool() const { return why_not == nullptr; }
};

// All of a tensor. Throws as DataFiles::Map and CheckPiece; UnsupportedError for an unknown type.
TensorView ViewTensor(const Checkpoint& checkpoint, const Tensor& tensor);

// One stored piece of it.
TensorView ViewPiece(const Checkpoint& checkpoint, const Tensor& tensor, const Piece& piece);

// Writable memory over a private mapping of all of a tensor: writes never reach the file.
TensorView CopyOnWriteTensor(const Checkpoint& checkpoint, const Tensor& tensor);

}  // namespace tensorbundle
