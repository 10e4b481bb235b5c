// SPDX-License-Identifier: Apache-2.0
// The columns of a row in another order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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

}  // namespace tensorbundle
