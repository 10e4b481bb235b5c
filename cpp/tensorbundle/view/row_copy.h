// SPDX-License-Identifier: Apache-2.0
// Copying rows from wherever they lie, those to come being fetched from memory meanwhile.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/view/row_bands.h"

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

// Looks rows up and copies them. Used by one thread.
class RowCopier {
 public:
  // `swap_unit`: bytes that must be reversed together, 1 for none.
  RowCopier(const RowBands& bands, unsigned swap_unit, StoreHint hint);
  // Makes streamed rows visible to other threads.
  ~RowCopier();
  RowCopier(const RowCopier&) = delete;
  RowCopier& operator=(const RowCopier&) = delete;

  // Fills `count` rows, `out_stride` bytes from one to the next. row_at(i) is a row's number, or
  // negative for a missing one, for which missing(out_row) is called.
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
    const RowBand* band = nullptr;
    uint64_t row = 0;  // within the band
  };

  // All rows lie evenly spaced in memory: looking one up is a multiplication.
  template <typename RowAt, typename Missing>
  void CopyEven(size_t count, const RowAt& row_at, const Missing& missing, uint8_t* out,
                uint64_t out_stride) const {
    for (size_t i = 0; i < std::min(ahead_, count); ++i) PrefetchEven(row_at(i));
    for (size_t i = 0; i < count; ++i, out += out_stride) {
      if (i + ahead_ < count) PrefetchEven(row_at(i + ahead_));
      const int64_t row = row_at(i);
      if (row < 0) {
        missing(out);
      } else {
        CopyWhole(out, base_ + static_cast<uint64_t>(row) * stride_);
      }
    }
  }

  // Rows lie in several bands or pieces, or in files: each is looked up once, when its fetching
  // starts.
  template <typename RowAt, typename Missing>
  void CopyUneven(size_t count, const RowAt& row_at, const Missing& missing, uint8_t* out,
                  uint64_t out_stride) {
    std::array<Found, kMaxAhead> ring;
    for (size_t i = 0; i < std::min(ahead_, count); ++i) ring[i] = Find(row_at(i));
    for (size_t i = 0; i < count; ++i, out += out_stride) {
      Found& slot = ring[i % ahead_];
      const Found found = slot;
      if (i + ahead_ < count) slot = Find(row_at(i + ahead_));
      if (found.band == nullptr) {
        missing(out);
      } else {
        CopyFound(found, out);
      }
    }
  }

  void PrefetchEven(int64_t row) const;
  void CopyWhole(uint8_t* out, const uint8_t* in) const;
  Found Find(int64_t row);
  void CopyFound(const Found& found, uint8_t* out) const;

  const RowBands& bands_;
  const uint64_t row_size_;
  const unsigned swap_unit_;
  const StoreHint hint_;
  const size_t ahead_;             // how many rows are on their way
  const uint8_t* base_ = nullptr;  // of row 0, when all are evenly spaced in memory
  uint64_t stride_ = 0;
  const RowBand* recent_;  // the band of the row before
};

}  // namespace tensorbundle
