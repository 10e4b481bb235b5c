// SPDX-License-Identifier: Apache-2.0
// Copying any box of a tensor out of whatever slices it is stored in.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

struct ReadOptions {
  int threads = 1;
  bool verify =
      true;  // compare the checksum of every slice that is read whole and was not verified before
  bool fresh = false;  // the destination's memory was just got, and nobody else touches it
};

// Throws what ReadBox would throw before it reads: for elements that are stored nowhere or twice,
// and for files that are missing or too short. For callers that get memory for the box: none is
// needed for what is not stored.
void RequireBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box);

// Copies the elements of `box`, row-major and native-endian, to `out`, which has exactly their
// size. Reads the bytes that the box needs, and no more than a page between them; what a box asks
// for is checked before anything is written. Elements of fixed size only. Throws UnsupportedError
// for types without one; CorruptionError for holes, overlaps, short files and checksums that differ
// (`out` then holds the bytes as they are stored); as DataFiles::Get.
void ReadBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box,
             MutableByteSpan out, const ReadOptions& options);

// Some bytes of a stored slice, and their CRC32C as they are stored. No bytes: the slice was read,
// but not so that a checksum of the bytes would help; whoever verifies it reads it again.
struct PartialChecksum {
  uint64_t slice = 0;   // among the tensor's
  uint64_t offset = 0;  // in the slice
  uint64_t size = 0;
  uint32_t crc = 0;
  auto operator<=>(const PartialChecksum&) const = default;
};

// The same as ReadBox, but compares nothing: returns what it read, one part for every slice that
// the box meets, for VerifyChecksums (read/verify.h). A box of no elements meets none.
std::vector<PartialChecksum> ReadBoxInParts(const Checkpoint& checkpoint, const Tensor& tensor,
                                            const Box& box, MutableByteSpan out,
                                            const ReadOptions& options);

// Returns the properties of the tensor's type. Throws UnsupportedError for an unknown type.
const DataTypeInfo& RequireKnownType(const Tensor& tensor);

// The same; throws UnsupportedError also for a type whose elements have no fixed size.
const DataTypeInfo& RequireFixedSize(const Tensor& tensor);

}  // namespace tensorbundle
