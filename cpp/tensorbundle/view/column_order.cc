// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/column_order.h"

#include <cstring>

namespace tensorbundle {

ColumnOrder ColumnOrder::Identity(uint64_t row_size) {
  ColumnOrder order;
  order.is_identity_ = true;
  order.new_row_size_ = row_size;
  return order;
}

ColumnOrder::ColumnOrder(std::span<const int64_t> columns, uint64_t cell_size)
    : new_row_size_(columns.size() * cell_size) {
  for (size_t i = 0; i < columns.size(); ++i) {
    const uint64_t destination = i * cell_size;
    if (columns[i] < 0) {
      missing_size_ += cell_size;
      const bool goes_on =
          !gaps_.empty() && gaps_.back().destination + gaps_.back().size == destination;
      if (goes_on) {
        gaps_.back().size += cell_size;
      } else {
        gaps_.push_back({destination, cell_size});
      }
      continue;
    }
    const uint64_t source = static_cast<uint64_t>(columns[i]) * cell_size;
    const bool goes_on = !runs_.empty() && runs_.back().source + runs_.back().size == source &&
                         runs_.back().destination + runs_.back().size == destination;
    if (goes_on) {
      runs_.back().size += cell_size;
    } else {
      runs_.push_back({source, destination, cell_size});
    }
  }
}

void ColumnOrder::Apply(const uint8_t* old_row, uint8_t* new_row) const {
  for (const Run& run : runs_) {
    // A lone float is the usual run: a move, where memcpy of an unknown size is a call.
    if (run.size == sizeof(uint32_t)) {
      std::memcpy(new_row + run.destination, old_row + run.source, sizeof(uint32_t));
    } else {
      std::memcpy(new_row + run.destination, old_row + run.source, run.size);
    }
  }
}

}  // namespace tensorbundle
