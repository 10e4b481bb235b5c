// SPDX-License-Identifier: Apache-2.0
// The columns of a row in another order.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// Immutable once made; thread-safe. A column is the `cell_size` bytes of one element of axis 1.
class ColumnOrder {
 public:
  // All columns where they were.
  static ColumnOrder Identity(uint64_t row_size);

  // New column i is old column columns[i], or missing where that is -1. The numbers are checked by
  // the caller before Apply.
  ColumnOrder(std::span<const int64_t> columns, uint64_t cell_size);

  // Bytes of a new row that no old column gives.
  struct Gap {
    uint64_t destination;
    uint64_t size;
  };

  bool is_identity() const { return is_identity_; }
  uint64_t new_row_size() const { return new_row_size_; }
  uint64_t missing_size() const { return missing_size_; }
  const std::vector<Gap>& gaps() const { return gaps_; }

  // Copies an old row's columns to their places in a new row; the gaps are left alone.
  void Apply(const uint8_t* old_row, uint8_t* new_row) const;

 private:
  // Neighbours that stay neighbours.
  struct Run {
    uint64_t source;
    uint64_t destination;
    uint64_t size;
  };
  ColumnOrder() = default;

  bool is_identity_ = false;
  uint64_t new_row_size_ = 0;
  uint64_t missing_size_ = 0;
  std::vector<Run> runs_;
  std::vector<Gap> gaps_;
};

// A table with its rows and columns in another order, some of them new.

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
struct CellFillValues {
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
void RequireRemappable(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& bands,
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
void RemapTable(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& bands,
                const Remapping& remapping, const CellFillValues& fill, MutableByteSpan out,
                uint64_t out_stride, int threads);

}  // namespace tensorbundle
