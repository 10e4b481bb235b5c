// SPDX-License-Identifier: Apache-2.0
// A table with its rows and columns in another order, some of them new.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/view/row_bands.h"

namespace tensorbundle {

// Where each new row and column comes from. -1 is one that the old table does not have.
struct Remapping {
  // Nothing: `num_rows` rows in order, from `first_row` on.
  std::optional<std::span<const int64_t>> rows = std::nullopt;
  uint64_t num_rows = 0;
  // Elements of axis 1. Nothing: all, in order.
  std::optional<std::span<const int64_t>> columns = std::nullopt;
  uint64_t first_row = 0;  // without `rows`: the row that the first one is
};

// What the missing cells get.
struct CellFill {
  enum class Kind : uint8_t {
    kElement,  // all of them the one that `bytes` holds
    kCells,    // each its own, in row-major order of the new table: the order of TensorFlow's
               // LoadAndRemapMatrix
    kPlaces    // each its own, from its place in `bytes`, which is laid out as the destination
               // is, and may be the destination
  };
  Kind kind = Kind::kElement;
  ByteSpan bytes;
};

// Throws what RemapTable would throw for the numbers, and for rows that cannot be read, before
// there is any memory for the new table.
void RequireRemappable(const Checkpoint& checkpoint, const Tensor& tensor, const RowBands& bands,
                       const Remapping& remapping, int threads);

// Elements of the new table that the old one does not have. Throws std::out_of_range for numbers
// below -1 or beyond the table, std::invalid_argument for columns of a tensor of rank 1.
uint64_t CountMissingCells(const Checkpoint& checkpoint, const Tensor& tensor,
                           const Remapping& remapping, int threads);

// Writes the new table's rows to `out`, `out_stride` bytes from one to the next, in one pass by
// threads. Every number is checked before anything is written; memory that changes meanwhile does
// what it does in GatherRows. Throws as CountMissingCells; what is wrong with a row that cannot be
// read; std::invalid_argument when the fill does not have as many elements as there are missing
// cells, or `out` is too small; as File::ReadAt.
void RemapTable(const Checkpoint& checkpoint, const Tensor& tensor, const RowBands& bands,
                const Remapping& remapping, const CellFill& fill, MutableByteSpan out,
                uint64_t out_stride, int threads);

}  // namespace tensorbundle
