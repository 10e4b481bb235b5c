// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/verify_ledger.h"

#include <algorithm>
#include <iterator>
#include <list>
#include <string>
#include <utility>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {
namespace {

// Bytes that a helper claims at once. Smaller ranges would fill the map of a large slice.
constexpr uint64_t kHelpSize = uint64_t{4} << 20;

// Slices whose verification is remembered. A model has a few thousand variables.
constexpr size_t kMaxLedgers = 16384;

}  // namespace

bool SliceLedger::Claim(uint64_t offset, uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (is_finished_ || size == 0) return false;
  const auto next = ranges_.lower_bound(offset);
  if (next != ranges_.end() && next->first < offset + size) return false;
  if (next != ranges_.begin()) {
    const auto& [start, range] = *std::prev(next);
    if (start + range.size > offset) return false;
  }
  ranges_.emplace_hint(next, offset, Range{size, false, 0});
  return true;
}

// Requires: the mutex is locked.
bool SliceLedger::FindGap(uint64_t* offset, uint64_t* size) const {
  uint64_t begin = 0;
  uint64_t end = size_;
  for (const auto& [start, range] : ranges_) {
    if (start > begin) {
      end = start;
      break;
    }
    begin = start + range.size;
  }
  *offset = begin;
  *size = std::min(kHelpSize, end - std::min(begin, end));
  return *size > 0;
}

bool SliceLedger::ClaimGap(uint64_t* offset, uint64_t* size) {
  const std::lock_guard lock(mutex_);
  if (is_finished_ || !FindGap(offset, size)) return false;
  ranges_.emplace(*offset, Range{*size, false, 0});
  return true;
}

void SliceLedger::Deposit(const Slice& slice, uint64_t offset, uint32_t crc) {
  const std::lock_guard lock(mutex_);
  if (is_finished_) return;
  Range& range = ranges_.at(offset);
  range.is_deposited = true;
  range.crc = crc;
  num_deposited_ += range.size;
  if (num_deposited_ < size_) return;
  uint32_t whole = 0;
  for (const auto& [start, each] : ranges_) whole = crc32c::Combine(whole, each.crc, each.size);
  std::exception_ptr error;
  try {
    FinishVerify(*slice.source.checkpoint, *slice.source.tensor, *slice.stored, whole);
  } catch (...) {
    error = std::current_exception();
  }
  End(error);
}

void SliceLedger::Release(uint64_t offset) {
  const std::lock_guard lock(mutex_);
  if (is_finished_) return;
  ranges_.erase(offset);
  changed_.notify_all();
}

// Requires: the mutex is locked.
void SliceLedger::End(std::exception_ptr error) {
  is_finished_ = true;
  error_ = std::move(error);
  ranges_.clear();
  changed_.notify_all();
}

void SliceLedger::Finish(const Slice& slice, int threads) {
  uint64_t offset = 0;
  uint64_t size = 0;
  while (true) {
    ParallelFor(static_cast<size_t>(threads), threads, [&](size_t) { Help(slice); });
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_finished_ || FindGap(&offset, &size); });
    if (!is_finished_) continue;
    if (error_) std::rethrow_exception(error_);
    return;
  }
}

void SliceLedger::Help(const Slice& slice) {
  uint64_t offset = 0;
  uint64_t size = 0;
  while (ClaimGap(&offset, &size)) {
    try {
      const File& file = slice.source.checkpoint->files().Get(slice.stored->file);
      const uint64_t start = slice.stored->offset + offset;
      Deposit(slice, offset, ParallelChecksum(file, start, size, 1, [](uint64_t) {}));
    } catch (const Error&) {  // of the slice: all who wait have it
      const std::lock_guard lock(mutex_);
      if (!is_finished_) End(std::current_exception());
      return;
    } catch (...) {
      Release(offset);
      throw;
    }
  }
}

bool SliceLedger::is_good() const {
  const std::lock_guard lock(mutex_);
  return is_finished_ && !error_;
}

bool SliceLedger::is_failed() const {
  const std::lock_guard lock(mutex_);
  return is_finished_ && error_ != nullptr;
}

namespace {

struct LedgerKey {
  std::string path;
  FileIdentity file;
  uint64_t offset;
  uint64_t size;
  uint32_t checksum;
  bool operator==(const LedgerKey&) const = default;
};

// The most recently used ledgers, by slice.
// Threads: safe.
class Ledgers {
 public:
  std::shared_ptr<SliceLedger> Get(const SliceLedger::Slice& slice) {
    const StoredSlice& stored = *slice.stored;
    const File& file = slice.source.checkpoint->files().Get(stored.file);
    if (file.WasJustWritten()) return std::make_shared<SliceLedger>(stored.size);
    const LedgerKey key{file.path(), file.identity(), stored.offset, stored.size,
                        stored.masked_checksum};
    const std::lock_guard lock(mutex_);
    if (const auto found = by_slice_.find({key.path, key.offset}); found != by_slice_.end()) {
      const Used::iterator entry = found->second;
      if (entry->first == key && !entry->second->is_failed()) {
        used_.splice(used_.begin(), used_, entry);
        return entry->second;
      }
      Erase(entry);  // of another version of the file, or failed
    }
    if (used_.size() >= kMaxLedgers) Erase(std::prev(used_.end()));
    used_.emplace_front(key, std::make_shared<SliceLedger>(stored.size));
    by_slice_.emplace(std::pair{key.path, key.offset}, used_.begin());
    return used_.front().second;
  }

 private:
  using Used = std::list<std::pair<LedgerKey, std::shared_ptr<SliceLedger>>>;

  void Erase(Used::iterator entry) {
    by_slice_.erase({entry->first.path, entry->first.offset});
    used_.erase(entry);
  }

  std::mutex mutex_;
  Used used_;  // the most recent first
  std::map<std::pair<std::string, uint64_t>, Used::iterator> by_slice_;
};

}  // namespace

std::shared_ptr<SliceLedger> LedgerOf(const SliceLedger::Slice& slice) {
  static Ledgers ledgers;
  return ledgers.Get(slice);
}

void VerifySlices(const OpenTensor& source, const Box& box, int64_t threads) {
  for (const SliceOverlap& overlap :
       FindOverlaps(source.checkpoint->catalog(), *source.tensor, box)) {
    const StoredSlice& stored = *overlap.slice;
    if (!HasChecksumOfBytes(*source.checkpoint, stored) || stored.size == 0) continue;
    const SliceLedger::Slice slice{source, &stored};
    const std::shared_ptr<SliceLedger> ledger = LedgerOf(slice);
    if (!ledger->is_good()) ledger->Finish(slice, ThreadsFor(threads, stored.size));
  }
}

bool MayHaveBeenRewritten(const OpenTensor& source, const Box& box) {
  const Checkpoint& checkpoint = *source.checkpoint;
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), *source.tensor, box)) {
    if (!HasChecksumOfBytes(checkpoint, *overlap.slice)) continue;
    if (checkpoint.files().Get(overlap.slice->file).MayHaveBeenRewritten()) return true;
  }
  return false;
}

void ReadAgainIfRewritten(const OpenTensor& source, const Box& box, MutableByteSpan out,
                          int threads) {
  if (!MayHaveBeenRewritten(source, box)) return;
  ReadBox(*source.checkpoint, *source.tensor, box, out,
          {.threads = threads, .verify_partial = true, .verify_again = true});
}

}  // namespace tensorbundle::op
