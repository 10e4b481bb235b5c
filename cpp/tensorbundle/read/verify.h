// SPDX-License-Identifier: Apache-2.0
// Comparison of stored bytes with their stored checksums. Reads, streams, ops and VerifyTensors()
// compare V2 slices here; bundle/checkpoint.cc compares samples at open, write/align.cc what it
// copies. Slices of V1 checkpoints are compared by their RecordStore, because a V1 checksum covers
// a block with many slices; the functions here decide which of the two applies.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// Whether the stored checksum of a slice is the CRC32C of its bytes. Otherwise it covers a block
// with other slices (V1) or the decoded elements (strings).
inline bool HasChecksumOfBytes(const Checkpoint& checkpoint, const StoredSlice& slice) {
  return checkpoint.records() == nullptr && slice.encoding == Encoding::kDense;
}

// Comparing slices that are read anyway: StartVerify(), read and compute the CRC32C,
// FinishVerify().

// kWhole: no element of the slice is used before FinishVerify(). kParts: some are, and those of a
// V1 checkpoint must have been verified.
enum class Delivery { kWhole, kParts };

// Prepares to verify a slice that is about to be read whole. Returns whether the reader must
// compute the CRC32C of the stored bytes and pass it to FinishVerify(). Returns false for a slice
// that was verified before, one whose decoder verifies it, and one of a V1 checkpoint that is
// verified here: small ones, and those delivered in parts. Throws CorruptionError, IOFailure.
bool StartVerify(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                 Delivery delivery);

// Compares the CRC32C of all bytes of the slice and marks the slice as verified. Throws
// CorruptionError if it is not the stored one, if none is stored, or if the block that holds the
// slice in a V1 checkpoint is corrupted. Throws IOFailure.
void FinishVerify(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                  uint32_t actual);

// Throws CorruptionError unless the bytes of a stored slice may be used without comparing their
// checksum. Checks what Checkpoint::CheckSlice checks. If the slice's file may be newer than the
// index, reads the slice and compares its checksum, unless it was verified before. Must be called
// before any such use. Throws what DataFiles::Get throws.
void RequireReadable(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice);

// Comparing slices that were read in parts, by different calls or processes: the checksums of the
// parts are combined, and the bytes between the parts are read again.

// The CRC32C of some stored bytes of a slice. `size == 0`: no usable checksum was computed;
// VerifyChecksums() reads the slice again.
struct PartialChecksum {
  uint64_t slice = 0;   // index among the tensor's slices
  uint64_t offset = 0;  // in the slice
  uint64_t size = 0;
  uint32_t crc = 0;
  auto operator<=>(const PartialChecksum&) const = default;
};

// Compares every slice that a partial checksum refers to. `partial` may be in any order and may
// overlap; each checksum is compared. Reads missing bytes with `threads` threads.
//
// Throws CorruptionError for a difference, and for parts outside their slice; std::invalid_argument
// for a slice that the tensor does not have; what File::ReadAt throws.
void VerifyChecksums(const Checkpoint& checkpoint, const Tensor& tensor,
                     std::span<const PartialChecksum> partial, int threads);

// Returns a PartialChecksum without bytes for each slice of the tensor: VerifyChecksums() then
// reads all of them.
std::vector<PartialChecksum> UnreadSlices(const Tensor& tensor);

// The same for the slices that a box intersects. Throws what FindOverlaps() throws.
std::vector<PartialChecksum> UnreadSlices(const Checkpoint& checkpoint, const Tensor& tensor,
                                          const Box& box);

// Verifying whole tensors.

// An error of a tensor.
struct Corruption {
  size_t tensor;             // index in the catalog
  const StoredSlice* slice;  // null: elements of the tensor are stored nowhere or twice
  std::string message;
  std::string cause{};   // the part of the message that is the same for other tensors, or ""
  int error_number = 0;  // of a failed system call: the bytes were not read, and may be good
};

struct VerifyResult {
  std::vector<Corruption> corruptions;  // in the order of files and offsets
  uint64_t num_bytes = 0;               // that were read
};

// Reads every byte of the tensors, in file order and with `threads` threads, and compares it.
// Checks that every element is stored exactly once. Missing and short files are reported as
// corruptions, failed system calls as corruptions with an error number. Other exceptions come out.
//
// `progress` is called from any thread with the number of bytes just read. If it throws, the work
// stops and the exception comes out.
VerifyResult VerifyTensors(const Checkpoint& checkpoint, std::span<const size_t> tensors,
                           int threads, const std::function<void(uint64_t)>& progress);

}  // namespace tensorbundle
