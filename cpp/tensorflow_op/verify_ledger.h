// SPDX-License-Identifier: Apache-2.0
// Ledger of checksums: stored slices that several ops read in part are verified in one pass.
//
// An op claims the bytes of a slice that it is about to read, and deposits their CRC32C. Then it
// helps: it reads and checksums ranges that no op has claimed, until the slice has none. Then it
// waits for the ranges of ops that are still reading. When the last range is deposited, the
// combined checksum is compared, once, with the stored one. An op that fails releases its claims,
// and others read these ranges: an error of one op does not reach the others, but an error of the
// slice does.
//
// An op never waits while it holds a claim. So some op always makes progress, also in a thread pool
// of one thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>

#include "tensorflow_op/checkpoint_cache.h"

namespace tensorbundle::op {

// The verification of one stored slice of one version of its file. Holds no file: each caller
// passes the slice that it has opened. Threads: safe.
class SliceLedger {
 public:
  explicit SliceLedger(uint64_t size) : size_(size) {}

  // A stored slice of an open tensor.
  struct Slice {
    OpenTensor source;
    const StoredSlice* stored;
  };

  // Claims bytes of the slice. Returns false if some of them are claimed already, or if the
  // verification is finished. After true, the caller must call Deposit() or Release().
  bool Claim(uint64_t offset, uint64_t size);

  // Takes the CRC32C of a claimed range. Compares the checksum of the slice if it is the last one.
  void Deposit(const Slice& slice, uint64_t offset, uint32_t crc);

  // Gives a claimed range back.
  void Release(uint64_t offset);

  // Reads and deposits ranges that are not claimed, with several threads, and waits for the end of
  // the verification. Requires: the caller holds no claim of any slice.
  // Throws: CorruptionError if the checksum is not the stored one; what File::ReadAt throws.
  void Finish(const Slice& slice, int threads);

  // Whether the slice has its stored checksum.
  bool is_good() const;
  // Whether the verification has ended with an error.
  bool is_failed() const;

 private:
  struct Range {
    uint64_t size;
    bool is_deposited;
    uint32_t crc;
  };

  bool FindGap(uint64_t* offset, uint64_t* size) const;
  bool ClaimGap(uint64_t* offset, uint64_t* size);
  void Help(const Slice& slice);
  void End(std::exception_ptr error);

  const uint64_t size_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  // finished, or a range was released
  // Guarded by the mutex:
  std::map<uint64_t, Range> ranges_;  // by offset
  uint64_t num_deposited_ = 0;        // bytes
  bool is_finished_ = false;
  std::exception_ptr error_;
};

// Returns the ledger of a stored slice, which all ops of the process share. A finished ledger is
// kept, with the most recent ones of other slices, unless it failed: then the next op verifies the
// slice again. A new version of the file has a new ledger. So has each op if the file was just
// written, because then two versions may have the same identity.
std::shared_ptr<SliceLedger> LedgerOf(const SliceLedger::Slice& slice);

// Compares the checksum of every stored slice that a box meets, except those with a good ledger.
// `threads` is the op's attribute.
// Throws: as SliceLedger::Finish().
void VerifySlices(const OpenTensor& source, const Box& box, int64_t threads);

// A slice is verified by one read, and some of its elements come from another. Returns whether a
// file that holds elements of the box may have been rewritten in between: whether it may have
// changed since it was opened.
bool MayHaveBeenRewritten(const OpenTensor& source, const Box& box);

// If so, fills `out` with the box once more, from slices that are verified in the same pass.
// Throws: as ReadBox().
void ReadAgainIfRewritten(const OpenTensor& source, const Box& box, MutableByteSpan out,
                          int threads);

}  // namespace tensorbundle::op
