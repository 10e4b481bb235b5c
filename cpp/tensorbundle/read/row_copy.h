// SPDX-License-Identifier: Apache-2.0
// Copying rows from wherever they lie, those to come being fetched from memory meanwhile.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/nontemporal_copy.h"
#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// Whether the rows will be read again soon, or fill more memory than the caches hold.
enum class StoreHint { kCached, kStreaming };

// Rows that a thread takes at a time: enough that handing them out does not count, few enough to
// share evenly.
inline constexpr size_t kRowsPerTask = 16384;

// Output from 8 MiB on is not expected to be found in a cache by whoever reads it.
inline StoreHint HintFor(uint64_t output_size) {
  return output_size >= uint64_t{8} << 20 ? StoreHint::kStreaming : StoreHint::kCached;
}

// A row number in the caller's memory, read once. That memory may change at any moment: another
// thread writes to it, or it is part of the destination. What was read is what gets checked and
// used.
template <typename Id>
Id ReadOnce(const Id& id) {
  return __atomic_load_n(&id, __ATOMIC_RELAXED);
}

// Starts to fetch a row. Of a long one only the beginning is fetched ahead: the processor's own
// prefetcher follows once copying starts.
inline void Prefetch(const uint8_t* row, uint64_t size) {
  constexpr uint64_t kMaxPrefetch = 1024;
  const uint64_t ahead = std::min(size, kMaxPrefetch);
  for (uint64_t at = 0; at < ahead; at += kCacheLine) __builtin_prefetch(row + at, 0, 1);
  __builtin_prefetch(row + ahead - 1, 0, 1);  // a row that starts inside a line ends in one more
}

// Looks rows up and copies them. Used by one thread.
class RowCopier {
 public:
  // `swap_unit`: bytes that must be reversed together, 1 for none.
  RowCopier(const RowLayout& bands, unsigned swap_unit, StoreHint hint);
  // Makes streamed rows visible to other threads.
  ~RowCopier();
  RowCopier(const RowCopier&) = delete;
  RowCopier& operator=(const RowCopier&) = delete;

  // Fills `count` rows, `out_stride` bytes from one to the next. row_at(i) is a row's number, or
  // negative for a missing one, for which missing(out_row) is called. row_at is called once for
  // each i, in order; it must return no row outside the table, and may throw.
  template <typename RowAt, typename Missing>
  void Copy(size_t count, const RowAt& row_at, const Missing& missing, uint8_t* out,
            uint64_t out_stride) {
    if (base_ != nullptr) {
      CopyEven(count, row_at, missing, out, out_stride);
    } else {
      CopyUneven(count, row_at, missing, out, out_stride);
    }
  }

 private:
  static constexpr size_t kMaxAhead = 64;

  // A row that was looked up: a place in a band, null for a missing one.
  struct Found {
    const RowGroup* band = nullptr;
    uint64_t row = 0;  // within the band
  };

  // All rows lie evenly spaced in memory: looking one up is a multiplication.
  template <typename RowAt, typename Missing>
  void CopyEven(size_t count, const RowAt& row_at, const Missing& missing, uint8_t* out,
                uint64_t out_stride) const {
    const auto place_of = [base = base_, stride = stride_](int64_t row) {
      return base + static_cast<uint64_t>(row) * stride;
    };
    CopyAhead<int64_t>(
        count,
        [&, row_size = row_size_](size_t i) {
          const int64_t row = row_at(i);
          if (row >= 0) Prefetch(place_of(row), row_size);
          return row;
        },
        [&](int64_t row) {
          if (row < 0) {
            missing(out);
          } else {
            CopyWhole(out, place_of(row));
          }
          out += out_stride;
        });
  }

  // Rows lie in several bands or slices, or in files.
  template <typename RowAt, typename Missing>
  void CopyUneven(size_t count, const RowAt& row_at, const Missing& missing, uint8_t* out,
                  uint64_t out_stride) {
    CopyAhead<Found>(
        count, [&](size_t i) { return Find(row_at(i)); },
        [&](const Found& found) {
          if (found.band == nullptr) {
            missing(out);
          } else {
            CopyFound(found, out);
          }
          out += out_stride;
        });
  }

  // Calls copy(look_up(i)) for each i in order. Each look-up, which starts to fetch the row, is
  // made once, some `ahead_` rows before the copy: a group of look-ups, then the group of copies
  // before it. Two loops that do one thing each keep their variables in registers.
  template <typename Place, typename LookUp, typename Copy>
  void CopyAhead(size_t count, const LookUp& look_up, const Copy& copy) const {
    std::array<Place, kMaxAhead> groups[2];
    const auto look_up_group = [&](size_t first, std::array<Place, kMaxAhead>& group) {
      const size_t size = std::min(ahead_, count - first);
      for (size_t i = 0; i < size; ++i) group[i] = look_up(first + i);
    };
    if (count > 0) look_up_group(0, groups[0]);
    size_t now = 0;
    for (size_t first = 0; first < count; first += ahead_, now = 1 - now) {
      const size_t size = std::min(ahead_, count - first);
      if (first + size < count) look_up_group(first + size, groups[1 - now]);
      for (size_t i = 0; i < size; ++i) copy(groups[now][i]);
    }
  }

  void CopyWhole(uint8_t* out, const uint8_t* in) const;
  Found Find(int64_t row);
  void CopyFound(const Found& found, uint8_t* out) const;

  const RowLayout& bands_;
  const uint64_t row_size_;
  const unsigned swap_unit_;
  const StoreHint hint_;
  const size_t ahead_;             // how many rows are on their way
  const uint8_t* base_ = nullptr;  // of row 0, when all are evenly spaced in memory
  uint64_t stride_ = 0;
  const RowGroup* recent_;  // the band of the row before
};

}  // namespace tensorbundle
