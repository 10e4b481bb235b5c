// SPDX-License-Identifier: Apache-2.0
// Comparing checksums of everything that is stored.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/read_box.h"

namespace tensorbundle {

// Compares a computed checksum of a slice with the stored one. All comparisons of data go through
// it. Throws CorruptionError if they differ, or if none is stored.
void CheckChecksum(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                   uint32_t actual);

// Something that is wrong with a tensor.
struct Corruption {
  size_t tensor;             // index in the catalog
  const StoredSlice* slice;  // null: the tensor is stored in part, or an element of it twice
  std::string message;
  std::string cause{};   // the part of the message that other tensors of the file share, or ""
  int error_number = 0;  // of the system, which failed a read: nothing is known of the bytes
};

struct VerifyResult {
  std::vector<Corruption> corruptions;  // in the order of files and offsets
  uint64_t num_bytes = 0;               // that were read
};

// Reads every byte of the tensors, in file order and by threads, and compares; looks whether every
// element is stored once. Missing and short files are damage like any other; a failure of the
// system is a Corruption with its error number; only what has nothing to do with the checkpoint is
// thrown. `progress` is called from any thread with the number of bytes just done; what it throws
// stops the work and comes out.
VerifyResult VerifyTensors(const Checkpoint& checkpoint, std::span<const size_t> tensors,
                           int threads, const std::function<void(uint64_t)>& progress);

// Throws unless bytes of a stored slice may be used without a look at their checksum: as
// Checkpoint::CheckSlice; where the slice's file may be newer than the index, the slice is compared
// with its checksum now, unless that was done before. Call it before any such use.
void RequireReadable(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice);

// Comparing checksums of slices that were read in parts, by different calls or processes: only the
// parts' checksums travel, not their bytes.

// Compares every slice that a part names with its stored checksum: the parts' checksums are put
// together, and what lies between them is read here, by threads. Parts may come in any order and
// repeat each other; every one of them is compared. Throws CorruptionError for a difference, and
// for parts that do not lie in the slice; std::invalid_argument for a slice that the tensor does
// not have; as File::ReadAt.
void VerifyChecksums(const Checkpoint& checkpoint, const Tensor& tensor,
                     std::span<const PartialChecksum> parts, int threads);

// A part without bytes for every slice of the tensor: VerifyChecksums then reads all of them.
std::vector<PartialChecksum> UnreadSlices(const Tensor& tensor);

// The same for the slices that a box meets.
std::vector<PartialChecksum> UnreadSlices(const Checkpoint& checkpoint, const Tensor& tensor,
                                          const Box& box);

}  // namespace tensorbundle
