// SPDX-License-Identifier: Apache-2.0
// Tensors as the memory they are mapped to.
#pragma once

#include <cstdint>
#include <memory>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/extent.h"
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

// Bytes of one file that are the elements of a box, row-major and native-endian.
struct StoredRun {
  uint32_t file = 0;  // in Catalog::files
  uint64_t offset = 0;
  uint64_t size = 0;
  const char* why_not = nullptr;  // set instead of the others when there is no such run
};

// Where a non-empty box lies, if its elements follow each other in one file. Throws as CoverBox and
// CheckPiece; UnsupportedError for an unknown type.
StoredRun LocateBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box);

// All of a tensor. Throws as DataFiles::Map and CheckPiece; UnsupportedError for an unknown type.
TensorView ViewTensor(const Checkpoint& checkpoint, const Tensor& tensor);

// One stored piece of it.
TensorView ViewPiece(const Checkpoint& checkpoint, const Tensor& tensor, const Piece& piece);

// Writable memory over a private mapping of all of a tensor: writes never reach the file. Throws
// also as CoverBox, and IOFailure when the system refuses the mapping.
TensorView CopyOnWriteTensor(const Checkpoint& checkpoint, const Tensor& tensor);

}  // namespace tensorbundle
