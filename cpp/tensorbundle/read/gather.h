// SPDX-License-Identifier: Apache-2.0
// Gathers rows by their numbers: looks their addresses up, and copies them by read/copy_rows.h.
//
// Row numbers are checked twice. The first pass checks all of them, so that nothing is written if
// one is wrong. The second pass reads each number once, checks it, and copies the row: if the
// caller's memory changes between the passes, no address outside the table is computed.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <variant>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/copy_rows.h"
#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// Row numbers in the caller's memory.
using RowIds = std::variant<std::span<const int32_t>, std::span<const int64_t>,
                            std::span<const uint32_t>, std::span<const uint64_t>>;

// The meaning of negative row numbers.
struct RowFillValues {
  enum class Kind {
    kNone,     // they count from the end, as in NumPy
    kElement,  // -1 is a missing row; each of its elements is `bytes`
    kRow,      // -1 is a missing row, which is `bytes`
    kRows,     // -1 is a missing row; the missing rows are in `bytes`, in order
  };
  Kind kind = Kind::kNone;
  ByteSpan bytes;  // in the byte order of the destination
};

// Checks the numbers as GatherRows() does, before the caller allocates memory for the rows.
// Throws std::out_of_range; the error of a row that cannot be read.
void CheckRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
               const RowIds& ids, RowFillValues::Kind kind, int threads);

// Copies the rows to `out`. If the numbers, the fill values or `out` overlap in memory or are
// written by other threads meanwhile, the result is other rows or std::out_of_range, and no access
// outside the table.
//
// Requires: `out` has the size of the rows; `layout` is of the tensor.
// Throws std::out_of_range for a number that is not a row, before anything is written; the error of
// a row that cannot be read; std::invalid_argument if `fill_values` or `out` has the wrong size;
// what File::ReadAt throws, if rows are not mapped.
void GatherRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
                const RowIds& ids, const RowFillValues& fill_values, MutableByteSpan out,
                int threads);

// The copying, shared with read/remap.h.

// Rows per task of a thread: enough to make handing out tasks cheap, few enough to balance threads.
inline constexpr size_t kRowsPerTask = 16384;

// Rows to copy between two calls of CheckInterrupt(): few enough to read them from a slow disk,
// enough to make filling the prefetch queue again negligible.
inline size_t RowsPerCheck(uint64_t row_size) {
  return static_cast<size_t>(std::max<uint64_t>(1, (uint64_t{1} << 20) / row_size));
}

// Reads a row number once. The caller's memory may change at any moment: another thread writes to
// it, or it is part of the destination. The value that was read is checked and then used.
template <typename Id>
Id ReadOnce(const Id& id) {
  return __atomic_load_n(&id, __ATOMIC_RELAXED);
}

// Looks up rows and copies them. Threads: one.
class RowCopier {
 public:
  // `swap_unit`: the bytes to reverse together, 1 for none.
  // Lifetime: `layout` must outlive the object.
  RowCopier(const RowLayout& layout, unsigned swap_unit, StoreHint hint);
  // Makes nontemporal stores visible to other threads.
  ~RowCopier();
  RowCopier(const RowCopier&) = delete;
  RowCopier& operator=(const RowCopier&) = delete;

  // Writes `count` rows, `out_stride` bytes from one to the next. row_at(i) returns the number of a
  // row, or a negative number for a missing row, for which missing(out_row) is called. row_at is
  // called once for each i, in order. It must not return a row outside the table; it may throw.
  template <typename RowAt, typename Missing>
  void Copy(size_t count, const RowAt& row_at, const Missing& missing, uint8_t* out,
            uint64_t out_stride) const {
    const CopyRowsFunction copy_rows = SelectCopyRows(row_size_, hint_, out, out_stride);
    // The rows [first, known) are looked up.
    std::array<int64_t, kBlock + kMaxAhead> numbers;
    std::array<const uint8_t*, kBlock + kMaxAhead> addresses;
    size_t known = 0;
    size_t end_of_others = 0;  // rows from here on have an address
    for (size_t first = 0, size = 0; first < count; first += size, out += size * out_stride) {
      size = std::min(kBlock, count - first);
      const size_t wanted = std::min(count, first + size + ahead_);
      for (; known < wanted; ++known) {
        numbers[known - first] = row_at(known);
        addresses[known - first] = AddressOf(numbers[known - first]);
        if (addresses[known - first] == nullptr) end_of_others = known + 1;
      }
      std::fill(addresses.begin() + (known - first), addresses.begin() + size + ahead_, nullptr);
      if (first == 0) {
        for (size_t i = 0; i < ahead_; ++i) {
          if (addresses[i] != nullptr) Prefetch(addresses[i], row_size_);
        }
      }
      copy_rows(addresses.data(), size, ahead_, row_size_, out, out_stride);
      for (size_t i = 0; i < size && first + i < end_of_others; ++i) {
        if (addresses[i] != nullptr) continue;
        if (numbers[i] < 0) {
          missing(out + i * out_stride);
        } else {
          CopySegments(numbers[i], out + i * out_stride);
        }
      }
      if (swap_unit_ > 1) SwapRows(addresses.data(), size, out, out_stride);
      std::copy(numbers.begin() + size, numbers.begin() + (known - first), numbers.begin());
      std::copy(addresses.begin() + size, addresses.begin() + (known - first), addresses.begin());
    }
  }

 private:
  static constexpr size_t kMaxAhead = 64;
  static constexpr size_t kBlock = 128;  // rows that are looked up before they are copied

  // Returns the address of a row that is in memory in one segment. Returns null for other rows, of
  // which it starts to fetch what is in memory, and for missing ones.
  const uint8_t* AddressOf(int64_t row) const {
    if (row < 0) return nullptr;
    if (base_ != nullptr) return base_ + static_cast<uint64_t>(row) * stride_;
    const RowGroup& group = layout_.At(row);
    const auto in_group = static_cast<uint64_t>(row - group.begin);
    if (group.segments.size() == 1 && group.segments[0].memory != nullptr) {
      return group.segments[0].memory + in_group * group.segments[0].stride;
    }
    for (const RowSegment& segment : group.segments) {
      if (segment.memory == nullptr) continue;
      Prefetch(segment.memory + in_group * segment.stride, segment.size);
    }
    return nullptr;
  }

  void CopySegments(int64_t row, uint8_t* out) const;
  void SwapRows(const uint8_t* const* rows, size_t count, uint8_t* out, uint64_t out_stride) const;

  const RowLayout& layout_;
  const uint64_t row_size_;
  const unsigned swap_unit_;
  const StoreHint hint_;
  const size_t ahead_;             // rows to look up before the first of them is copied
  const uint8_t* base_ = nullptr;  // of row 0, if all rows from it on are in memory at one stride
  uint64_t stride_ = 0;
};

}  // namespace tensorbundle
