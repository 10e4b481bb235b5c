// SPDX-License-Identifier: Apache-2.0
// Remaps a table: writes its rows and columns in another order, with fill values for rows and
// columns that the table does not have.
//
// Neighbouring columns that stay neighbours are copied as one span. Row numbers are checked twice,
// as in read/gather.h. Column numbers are few, so they are copied once and then checked.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// The old row of each new row, and the old column of each new column; -1 for a missing one.
struct Remapping {
  // Without a value: `num_rows` rows in order, from `first_row` on.
  std::optional<std::span<const int64_t>> rows = std::nullopt;
  uint64_t num_rows = 0;
  // Elements of axis 1. Without a value: all of them, in order.
  std::optional<std::span<const int64_t>> columns = std::nullopt;
  uint64_t first_row = 0;  // used without `rows`
};

// The values of missing cells.
struct CellFillValues {
  enum class Kind : uint8_t {
    kElement,  // `bytes` is one element, the value of all missing cells
    kCells,    // `bytes` has a value per missing cell, in row-major order of the new table, as
               // TensorFlow's LoadAndRemapMatrix expects
    kPlaces    // `bytes` has the layout of the destination, and may be the destination: each cell
               // is taken from its own place
  };
  Kind kind = Kind::kElement;
  ByteSpan bytes;
};

// Checks the numbers and the rows as RemapTable() does, before the caller allocates memory for the
// new table. Throws what RemapTable() throws for them.
void RequireRemappable(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
                       const Remapping& remapping, int threads);

// Returns the number of elements of the new table that the old one does not have. Throws
// std::out_of_range for a number below -1 or beyond the table, std::invalid_argument for columns of
// a tensor of rank 1.
uint64_t CountMissingCells(const Checkpoint& checkpoint, const Tensor& tensor,
                           const Remapping& remapping, int threads);

// Writes the rows of the new table to `out`, `out_stride` bytes from one to the next, in one pass.
// If memory of the caller changes meanwhile, GatherRows() says what happens. `fresh`: `out` is
// newly allocated, and no other thread accesses it.
//
// Throws std::out_of_range and std::invalid_argument as CountMissingCells() does, before anything
// is written; the error of a row that cannot be read; std::invalid_argument if `fill_values` or
// `out` has the wrong size; what File::ReadAt throws, if rows are not mapped.
void RemapTable(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
                const Remapping& remapping, const CellFillValues& fill_values, MutableByteSpan out,
                uint64_t out_stride, int threads, bool fresh = false);

}  // namespace tensorbundle
