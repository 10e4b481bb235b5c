// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/verify.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/slice_cover.h"

namespace tensorbundle {
namespace {

// Throws CorruptionError if a computed checksum is not the stored one, or if none is stored.
void CheckChecksum(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                   uint32_t actual) {
  const uint32_t expected = crc32c::Unmask(slice.masked_checksum);
  if (slice.has_checksum && actual == expected) return;
  const std::string what = checkpoint.files().Get(slice.file).path() + ": " +
                           Describe(checkpoint.catalog(), tensor, slice) + " at offset " +
                           std::to_string(slice.offset) + ", " + std::to_string(slice.size) +
                           " bytes: ";
  if (!slice.has_checksum) {
    throw CorruptionError(what + "the index stores no checksum to verify it with");
  }
  const std::string foreign = checkpoint.files().DescribeError(slice.file);
  throw CorruptionError(what + "the stored CRC32C is " + std::to_string(expected) +
                        ", the bytes give " + std::to_string(actual) +
                        (foreign.empty() ? "" : "; " + foreign));
}

// Reads a slice and compares it, with `threads` threads.
void VerifySlice(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                 int threads, const std::function<void(uint64_t)>& progress) {
  RequireKnownType(tensor);
  checkpoint.CheckSlice(tensor, slice, Compared::kYes);
  if (checkpoint.records() != nullptr) {
    checkpoint.records()->Verify(tensor, slice);
    progress(slice.size);
  } else if (slice.encoding == Encoding::kDense) {
    const File& file = checkpoint.files().Get(slice.file);
    CheckChecksum(checkpoint, tensor, slice,
                  ParallelChecksum(file, slice.offset, slice.size, threads, progress));
  } else {
    ReadStrings(checkpoint, tensor, slice, /*verify=*/true);
    progress(slice.size);
  }
  checkpoint.SetVerified(slice);
}

}  // namespace

bool StartVerify(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                 Delivery delivery) {
  if (checkpoint.IsVerified(slice) || slice.encoding == Encoding::kRecord) return false;
  const RecordStore* records = checkpoint.records();
  if (records == nullptr) return HasChecksumOfBytes(checkpoint, slice);
  if (delivery == Delivery::kWhole && records->NeedsChecksumOfBytes(tensor, slice)) return true;
  records->Verify(tensor, slice);
  checkpoint.SetVerified(slice);
  return false;
}

void FinishVerify(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                  uint32_t actual) {
  if (const RecordStore* records = checkpoint.records()) {
    records->VerifyWith(tensor, slice, actual);
  } else {
    CheckChecksum(checkpoint, tensor, slice, actual);
  }
  checkpoint.SetVerified(slice);
}

void RequireReadable(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice) {
  checkpoint.CheckSlice(tensor, slice, Compared::kNo);
  if (!checkpoint.files().IsDoubtful(slice.file) || slice.size == 0) return;
  if (checkpoint.IsVerified(slice) || !slice.has_checksum) return;
  try {
    VerifySlice(checkpoint, tensor, slice, AvailableProcessors(), [](uint64_t) {});
  } catch (const CorruptionError& error) {
    throw CorruptionError(std::string(error.what()) +
                          "; the file is newer than its index: the checkpoint was being replaced, "
                          "or a save did not end. Open it again");
  }
}

namespace {

// Compares the partial checksums of one slice.
class SliceVerifier {
 public:
  SliceVerifier(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                int threads)
      : checkpoint_(checkpoint), tensor_(tensor), slice_(slice), threads_(threads) {}

  // Requires: `partial` is in ascending order without duplicates.
  void Verify(std::vector<PartialChecksum> partial) const {
    checkpoint_.CheckSlice(tensor_, slice_, Compared::kYes);
    if (checkpoint_.records() != nullptr) {
      checkpoint_.records()->Verify(tensor_, slice_);
    } else if (slice_.encoding != Encoding::kDense) {
      ReadStrings(checkpoint_, tensor_, slice_, /*verify=*/true);
    } else {
      std::erase_if(partial, [](const PartialChecksum& p) { return p.size == 0; });
      do {
        CheckChecksum(checkpoint_, tensor_, slice_, CombineDisjoint(&partial));
      } while (!partial.empty());
    }
  }

 private:
  // Combines partial checksums that do not overlap into the slice's checksum and removes them. The
  // others, for bytes that were read more than once, are left for another call.
  uint32_t CombineDisjoint(std::vector<PartialChecksum>* partial) const {
    uint32_t crc = 0;
    uint64_t position = 0;
    std::vector<PartialChecksum> left;
    for (const PartialChecksum& p : *partial) {
      if (!RangeFits(p.offset, p.size, slice_.size)) ThrowOutside(p);
      if (p.offset < position) {
        left.push_back(p);
        continue;
      }
      crc = ReadGap(crc, position, p.offset - position);
      crc = crc32c::Combine(crc, p.crc, p.size);
      position = p.offset + p.size;
    }
    *partial = std::move(left);
    return ReadGap(crc, position, slice_.size - position);
  }

  uint32_t ReadGap(uint32_t crc, uint64_t offset, uint64_t size) const {
    if (size == 0) return crc;
    const File& file = checkpoint_.files().Get(slice_.file);
    const uint32_t gap =
        ParallelChecksum(file, slice_.offset + offset, size, threads_, [](uint64_t) {});
    return crc32c::Combine(crc, gap, size);
  }

  [[noreturn]] void ThrowOutside(const PartialChecksum& p) const {
    throw CorruptionError(Describe(checkpoint_.catalog(), tensor_, slice_) + " has " +
                          std::to_string(slice_.size) + " bytes, but " + std::to_string(p.size) +
                          " were read from offset " + std::to_string(p.offset) +
                          " in it; was the checkpoint rewritten meanwhile?");
  }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const StoredSlice& slice_;
  const int threads_;
};

}  // namespace

void VerifyChecksums(const Checkpoint& checkpoint, const Tensor& tensor,
                     std::span<const PartialChecksum> partial, int threads) {
  const std::span<const StoredSlice> slices = checkpoint.catalog().Slices(tensor);
  std::vector<PartialChecksum> sorted(partial.begin(), partial.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (auto first = sorted.begin(); first != sorted.end();) {
    if (first->slice >= slices.size()) {
      throw std::invalid_argument("a part is of stored slice " + std::to_string(first->slice) +
                                  " of a tensor that has " + std::to_string(slices.size()));
    }
    const auto last = std::find_if(
        first, sorted.end(), [&](const PartialChecksum& p) { return p.slice != first->slice; });
    SliceVerifier(checkpoint, tensor, slices[first->slice], threads).Verify({first, last});
    first = last;
  }
}

std::vector<PartialChecksum> UnreadSlices(const Tensor& tensor) {
  std::vector<PartialChecksum> unread;
  for (uint64_t slice = 0; slice < tensor.num_slices; ++slice) unread.push_back({.slice = slice});
  return unread;
}

std::vector<PartialChecksum> UnreadSlices(const Checkpoint& checkpoint, const Tensor& tensor,
                                          const Box& box) {
  if (Volume(box) == 0) return {};
  const StoredSlice* first = checkpoint.catalog().Slices(tensor).data();
  std::vector<PartialChecksum> unread;
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), tensor, box)) {
    unread.push_back({.slice = static_cast<uint64_t>(overlap.slice - first)});
  }
  return unread;
}

namespace {

// Slices up to this size are verified in parallel, one per thread; larger ones one after another,
// each by all threads.
constexpr uint64_t kSmallSlice = uint64_t{4} << 20;

struct SliceOfTensor {
  size_t tensor;  // index in the catalog
  const StoredSlice* slice;
  bool is_counted = false;  // the item before it has the same bytes: a V1 block with many records
};

// Sorts the items by file and offset, and marks those whose bytes are counted already.
void SortByFile(std::vector<SliceOfTensor>* items) {
  std::sort(items->begin(), items->end(), [](const SliceOfTensor& a, const SliceOfTensor& b) {
    return std::tie(a.slice->file, a.slice->offset) < std::tie(b.slice->file, b.slice->offset);
  });
  for (size_t i = 1; i < items->size(); ++i) {
    const StoredSlice& before = *(*items)[i - 1].slice;
    const StoredSlice& slice = *(*items)[i].slice;
    (*items)[i].is_counted = slice.encoding == Encoding::kRecord &&
                             before.encoding == Encoding::kRecord && slice.file == before.file &&
                             slice.offset == before.offset;
  }
}

// Whether a failed system call tells something about the file, and will fail again.
bool IsPermanent(int error_number) {
  return error_number == EISDIR || error_number == EINVAL || error_number == ELOOP;
}

// Converts the exception that is being handled. `slice` is null if the tensor as a whole is wrong.
Corruption CurrentCorruption(const Checkpoint& checkpoint, size_t index, const StoredSlice* slice) {
  Corruption corruption{index, slice, {}};
  try {
    throw;
  } catch (const IOFailure& error) {
    corruption.message = std::string(error.what()) + ": " + std::strerror(error.error_number());
    if (!IsPermanent(error.error_number())) corruption.error_number = error.error_number();
  } catch (const Error& error) {
    corruption.message = error.what();
  }
  if (slice == nullptr) return corruption;
  const Catalog& catalog = checkpoint.catalog();
  const std::string own = Describe(catalog, catalog.tensors[index], *slice) + ": ";
  const DataFiles& files = checkpoint.files();
  if (files.IsOpen(slice->file)) {
    corruption.cause = files.DescribeError(slice->file);
  } else if (corruption.message.starts_with(own)) {
    corruption.cause = corruption.message.substr(own.size());
  }
  return corruption;
}

// Collects the result of VerifyTensors(). Threads: any number.
class TensorVerifier {
 public:
  TensorVerifier(const Checkpoint& checkpoint, const std::function<void(uint64_t)>& progress)
      : checkpoint_(checkpoint), progress_(progress) {}

  void VerifyBytes(const SliceOfTensor& item, int threads) {
    const auto progress = [this, &item](uint64_t bytes) {
      if (!item.is_counted) num_bytes_.fetch_add(bytes, std::memory_order_relaxed);
      progress_(bytes);
    };
    try {
      VerifySlice(checkpoint_, checkpoint_.catalog().tensors[item.tensor], *item.slice, threads,
                  progress);
    } catch (const Error&) {
      Add(CurrentCorruption(checkpoint_, item.tensor, item.slice));
    }
  }

  // Checks that every element of a tensor is stored exactly once.
  void VerifyCover(size_t index) {
    const Catalog& catalog = checkpoint_.catalog();
    const Tensor& tensor = catalog.tensors[index];
    if (tensor.num_elements == 0) return;
    if (tensor.num_slices == 1 &&
        catalog.Slices(tensor)[0].first_extent == StoredSlice::kWholeTensor) {
      return;
    }
    try {
      FindOverlaps(catalog, tensor, WholeBox(catalog.Shape(tensor)));
    } catch (const Error&) {
      Add(CurrentCorruption(checkpoint_, index, nullptr));
    }
  }

  VerifyResult TakeResult() {
    const auto place = [](const Corruption& corruption) {
      const StoredSlice* slice = corruption.slice;  // null sorts before all files
      return slice == nullptr
                 ? std::make_tuple(false, uint32_t{0}, uint64_t{0}, corruption.tensor)
                 : std::make_tuple(true, slice->file, slice->offset, corruption.tensor);
    };
    std::stable_sort(corruptions_.begin(), corruptions_.end(),
                     [&](const Corruption& a, const Corruption& b) { return place(a) < place(b); });
    return {std::move(corruptions_), num_bytes_};
  }

 private:
  void Add(Corruption corruption) {
    const std::lock_guard<std::mutex> lock(mutex_);
    corruptions_.push_back(std::move(corruption));
  }

  const Checkpoint& checkpoint_;
  const std::function<void(uint64_t)>& progress_;
  std::atomic<uint64_t> num_bytes_{0};
  std::mutex mutex_;
  std::vector<Corruption> corruptions_;  // guarded by mutex_
};

}  // namespace

VerifyResult VerifyTensors(const Checkpoint& checkpoint, std::span<const size_t> tensors,
                           int threads, const std::function<void(uint64_t)>& progress) {
  const Catalog& catalog = checkpoint.catalog();
  if (checkpoint.records() != nullptr) checkpoint.records()->Forget();  // read the files again
  TensorVerifier verifier(checkpoint, progress);
  std::vector<SliceOfTensor> items;
  for (const size_t tensor : tensors) {
    for (const StoredSlice& slice : catalog.Slices(catalog.tensors[tensor])) {
      items.push_back({tensor, &slice});
    }
    verifier.VerifyCover(tensor);
  }
  SortByFile(&items);
  const auto large = std::stable_partition(
      items.begin(), items.end(),
      [](const SliceOfTensor& item) { return item.slice->size <= kSmallSlice; });
  ParallelFor(static_cast<size_t>(large - items.begin()), threads,
              [&](size_t i) { verifier.VerifyBytes(items[i], 1); });
  for (auto item = large; item != items.end(); ++item) verifier.VerifyBytes(*item, threads);
  return verifier.TakeResult();
}

}  // namespace tensorbundle
