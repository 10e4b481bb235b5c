// SPDX-License-Identifier: Apache-2.0
// Pieces whose bytes must be decoded before they are elements, or whose checksum covers more than
// the piece.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"

namespace tensorbundle {

// Implemented by the V1 format, whose tensors lie as protobuf messages inside a table. Thread-safe.
class RecordStore {
 public:
  virtual ~RecordStore() = default;

  // The elements of a kRecord piece, dense and row-major. Verifies the checksum that covers them.
  // Throws CorruptionError, IOFailure.
  virtual std::vector<uint8_t> DecodeDense(const Tensor& tensor, const Piece& piece) const = 0;

  // The elements of a kRecord piece of strings.
  virtual std::vector<std::string> DecodeStrings(const Tensor& tensor,
                                                 const Piece& piece) const = 0;

  // Compares the checksum that covers any piece of this store, and checks that the piece is what
  // the catalog says. Throws CorruptionError when it is not. A checksum may cover many pieces and
  // be compared once for all of them: what was compared last is remembered.
  virtual void Verify(const Tensor& tensor, const Piece& piece) const = 0;

  // Throws CorruptionError when the store has no record of a kRecord piece. Reads the block that
  // the record should be in, and compares its checksum.
  virtual void RequireRecord(const Tensor& tensor, const Piece& piece) const = 0;

  // Drops what Verify remembers: the next one looks at the file. For whoever starts to verify a
  // checkpoint.
  virtual void Forget() const = 0;
};

}  // namespace tensorbundle
