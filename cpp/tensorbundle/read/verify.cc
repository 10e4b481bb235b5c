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

void CheckChecksum(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                   uint32_t actual) {
  const std::string what = checkpoint.files().Get(slice.file).path() + ": " +
                           Describe(checkpoint.catalog(), tensor, slice) + " at offset " +
                           std::to_string(slice.offset) + ", " + std::to_string(slice.size) +
                           " bytes: ";
  if (!slice.has_checksum)
    throw CorruptionError(what + "the index stores no checksum to verify it with");
  const uint32_t expected = crc32c::Unmask(slice.masked_checksum);
  if (actual == expected) return;
  const std::string foreign = checkpoint.files().DescribeError(slice.file);
  throw CorruptionError(what + "the stored CRC32C is " + std::to_string(expected) +
                        ", the bytes give " + std::to_string(actual) +
                        (foreign.empty() ? "" : "; " + foreign));
}

namespace {

// Slices up to this size are verified side by side, larger ones by all threads together.
constexpr uint64_t kSmallSlice = uint64_t{4} << 20;

struct Item {
  size_t tensor;
  const StoredSlice* slice;
  bool is_counted_elsewhere =
      false;  // another item has the same bytes: a V1 block with many records
};

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

// System errors that say something of what is on the disk, and stay as long as it does.
bool IsLasting(int error_number) {
  return error_number == EISDIR || error_number == EINVAL || error_number == ELOOP;
}

// What the exception being handled says of a slice; slice null: of its tensor.
Corruption DamageOf(const Checkpoint& checkpoint, size_t index, const StoredSlice* slice) {
  Corruption damage{index, slice, {}};
  try {
    throw;
  } catch (const IOFailure& error) {
    damage.message = std::string(error.what()) + ": " + std::strerror(error.error_number());
    if (!IsLasting(error.error_number())) damage.error_number = error.error_number();
  } catch (const Error& error) {
    damage.message = error.what();
  }
  if (slice == nullptr) return damage;
  const Catalog& catalog = checkpoint.catalog();
  const std::string own = Describe(catalog, catalog.tensors[index], *slice) + ": ";
  const DataFiles& files = checkpoint.files();
  if (files.IsOpen(slice->file)) {
    damage.cause = files.DescribeError(slice->file);
  } else if (damage.message.starts_with(own)) {
    damage.cause = damage.message.substr(own.size());
  }
  return damage;
}

// The result so far, shared by threads.
class Verifier {
 public:
  Verifier(const Checkpoint& checkpoint, const std::function<void(uint64_t)>& progress)
      : checkpoint_(checkpoint), progress_(progress) {}

  // Compares a slice, by so many threads.
  void Verify(const Item& item, int threads) {
    const auto progress = [this, &item](uint64_t bytes) {
      if (!item.is_counted_elsewhere) num_bytes_.fetch_add(bytes, std::memory_order_relaxed);
      progress_(bytes);
    };
    try {
      VerifySlice(checkpoint_, checkpoint_.catalog().tensors[item.tensor], *item.slice, threads,
                  progress);
    } catch (const Error&) {
      Add(DamageOf(checkpoint_, item.tensor, item.slice));
    }
  }

  // Whether every element of a tensor is stored, and once.
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
      Add(DamageOf(checkpoint_, index, nullptr));
    }
  }

  VerifyResult TakeResult() {
    const auto place = [](const Corruption& damage) {
      const StoredSlice* slice = damage.slice;  // none: before all files
      return slice == nullptr ? std::make_tuple(false, uint32_t{0}, uint64_t{0}, damage.tensor)
                              : std::make_tuple(true, slice->file, slice->offset, damage.tensor);
    };
    std::stable_sort(corruptions_.begin(), corruptions_.end(),
                     [&](const Corruption& a, const Corruption& b) { return place(a) < place(b); });
    return {std::move(corruptions_), num_bytes_};
  }

 private:
  void Add(Corruption damage) {
    const std::lock_guard<std::mutex> lock(mutex_);
    corruptions_.push_back(std::move(damage));
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
  if (checkpoint.records() != nullptr) checkpoint.records()->Forget();  // the disk is what is asked
  Verifier verifier(checkpoint, progress);
  std::vector<Item> items;
  for (const size_t tensor : tensors) {
    for (const StoredSlice& slice : catalog.Slices(catalog.tensors[tensor]))
      items.push_back({tensor, &slice});
    verifier.VerifyCover(tensor);
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tie(a.slice->file, a.slice->offset) < std::tie(b.slice->file, b.slice->offset);
  });
  for (size_t i = 1; i < items.size(); ++i) {
    const StoredSlice& before = *items[i - 1].slice;
    const StoredSlice& slice = *items[i].slice;
    items[i].is_counted_elsewhere = slice.encoding == Encoding::kRecord &&
                                    before.encoding == Encoding::kRecord &&
                                    slice.file == before.file && slice.offset == before.offset;
  }
  const auto large = std::stable_partition(
      items.begin(), items.end(), [](const Item& item) { return item.slice->size <= kSmallSlice; });
  ParallelFor(static_cast<size_t>(large - items.begin()), threads,
              [&](size_t i) { verifier.Verify(items[i], 1); });
  for (auto item = large; item != items.end(); ++item) verifier.Verify(*item, threads);
  return verifier.TakeResult();
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

// Parts of one slice, by offset, none twice.
class SliceVerifier {
 public:
  SliceVerifier(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
                int threads)
      : checkpoint_(checkpoint), tensor_(tensor), slice_(slice), threads_(threads) {}

  void Verify(std::vector<PartialChecksum> parts) const {
    checkpoint_.CheckSlice(tensor_, slice_, Compared::kYes);
    if (checkpoint_.records() != nullptr) {
      checkpoint_.records()->Verify(tensor_, slice_);
    } else if (slice_.encoding != Encoding::kDense) {
      ReadStrings(checkpoint_, tensor_, slice_, /*verify=*/true);
    } else {
      std::erase_if(parts, [](const PartialChecksum& part) { return part.size == 0; });
      do {
        CheckChecksum(checkpoint_, tensor_, slice_, TakeCover(&parts));
      } while (!parts.empty());
    }
  }

 private:
  // Puts together the slice's checksum from parts that do not overlap, and takes them out: those
  // that are left (someone else read the same bytes) make up another one.
  uint32_t TakeCover(std::vector<PartialChecksum>* parts) const {
    uint32_t crc = 0;
    uint64_t position = 0;
    std::vector<PartialChecksum> left;
    for (const PartialChecksum& part : *parts) {
      if (!RangeFits(part.offset, part.size, slice_.size)) ThrowOutside(part);
      if (part.offset < position) {
        left.push_back(part);
        continue;
      }
      crc = ReadGap(crc, position, part.offset - position);
      crc = crc32c::Combine(crc, part.crc, part.size);
      position = part.offset + part.size;
    }
    *parts = std::move(left);
    return ReadGap(crc, position, slice_.size - position);
  }

  uint32_t ReadGap(uint32_t crc, uint64_t offset, uint64_t size) const {
    if (size == 0) return crc;
    const File& file = checkpoint_.files().Get(slice_.file);
    const uint32_t gap =
        ParallelChecksum(file, slice_.offset + offset, size, threads_, [](uint64_t) {});
    return crc32c::Combine(crc, gap, size);
  }

  [[noreturn]] void ThrowOutside(const PartialChecksum& part) const {
    throw CorruptionError(Describe(checkpoint_.catalog(), tensor_, slice_) + " has " +
                          std::to_string(slice_.size) + " bytes, but " + std::to_string(part.size) +
                          " were read from offset " + std::to_string(part.offset) +
                          " in it; was the checkpoint rewritten meanwhile?");
  }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const StoredSlice& slice_;
  const int threads_;
};

}  // namespace

void VerifyChecksums(const Checkpoint& checkpoint, const Tensor& tensor,
                     std::span<const PartialChecksum> parts, int threads) {
  const std::span<const StoredSlice> slices = checkpoint.catalog().Slices(tensor);
  std::vector<PartialChecksum> sorted(parts.begin(), parts.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (auto first = sorted.begin(); first != sorted.end();) {
    if (first->slice >= slices.size()) {
      throw std::invalid_argument("a part is of stored slice " + std::to_string(first->slice) +
                                  " of a tensor that has " + std::to_string(slices.size()));
    }
    const auto last = std::find_if(first, sorted.end(), [&](const PartialChecksum& part) {
      return part.slice != first->slice;
    });
    SliceVerifier(checkpoint, tensor, slices[first->slice], threads).Verify({first, last});
    first = last;
  }
}

std::vector<PartialChecksum> UnreadSlices(const Tensor& tensor) {
  std::vector<PartialChecksum> parts;
  for (uint64_t slice = 0; slice < tensor.num_slices; ++slice) parts.push_back({.slice = slice});
  return parts;
}

std::vector<PartialChecksum> UnreadSlices(const Checkpoint& checkpoint, const Tensor& tensor,
                                          const Box& box) {
  if (Volume(box) == 0) return {};
  const StoredSlice* first = checkpoint.catalog().Slices(tensor).data();
  std::vector<PartialChecksum> parts;
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), tensor, box)) {
    parts.push_back({.slice = static_cast<uint64_t>(overlap.slice - first)});
  }
  return parts;
}

}  // namespace tensorbundle
