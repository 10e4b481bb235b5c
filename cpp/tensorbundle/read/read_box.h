// SPDX-License-Identifier: Apache-2.0
// Copies of boxes: the elements of any box of a tensor, from all stored slices that intersect it;
// and of many whole tensors at once.
#pragma once

#include <span>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {

// Returns the properties of the tensor's type. Throws UnsupportedError for an unknown type.
const DataTypeInfo& RequireKnownType(const Tensor& tensor);

// The same; throws UnsupportedError also for a type whose elements have no fixed size.
const DataTypeInfo& RequireFixedSize(const Tensor& tensor);

struct ReadOptions {
  int threads = 1;
  bool verify = true;  // compare the checksum of each slice that is read whole, unless verified
  bool fresh = false;  // the destination is newly allocated, and no other thread accesses it
  // Compare also the checksums of slices that are read in part: ReadBox() reads them whole, in one
  // pass. For files that are slow to read twice.
  bool verify_partial = false;
  bool verify_again = false;  // compare also slices of a V2 checkpoint that were verified before
};

// Checks a box as ReadBox() does, before the caller allocates memory for it. Throws CorruptionError
// for elements that are stored nowhere or twice and for short files; UnsupportedError for an
// unknown type; what DataFiles::Get throws.
void RequireBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box);

// Copies the elements of `box`, row-major and native-endian, to `out`. Reads the bytes of the box,
// and gaps of up to a page between them. Checks the request before it writes anything.
//
// Requires: `box` is inside the tensor.
// Throws CorruptionError for elements that are stored nowhere or twice, short files and checksums
// that differ (`out` then holds the elements as they are stored); UnsupportedError for elements
// without a fixed size; std::invalid_argument if `out` has the wrong size; what DataFiles::Get and
// File::ReadAt throw.
void ReadBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box,
             MutableByteSpan out, const ReadOptions& options);

// A tensor, and the memory for all of its elements.
struct TensorRead {
  const Tensor* tensor;
  MutableByteSpan out;
};

// Copies whole tensors as ReadBox() does, in the order of the files, with all threads on all
// tensors. Throws: what ReadBox() throws, for one of the tensors; the destinations are then filled
// in part.
void ReadTensors(const Checkpoint& checkpoint, std::span<const TensorRead> reads,
                 const ReadOptions& options);

// Copies as ReadBox() does, but compares no checksums: returns what VerifyChecksums() needs to
// compare them, one PartialChecksum for each slice that intersects the box.
std::vector<PartialChecksum> ReadBoxWithChecksums(const Checkpoint& checkpoint,
                                                  const Tensor& tensor, const Box& box,
                                                  MutableByteSpan out, const ReadOptions& options);

}  // namespace tensorbundle
