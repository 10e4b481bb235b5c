// SPDX-License-Identifier: Apache-2.0
// Where the rows of a tensor lie: rows are the elements of axis 0, as people index embedding
// tables.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

// One run of bytes that every row of a band has at a fixed distance from the same run of the row
// before.
struct RowSegment {
  const uint8_t* memory = nullptr;  // of the band's first row, when mapped or decoded; else null
  const File* file = nullptr;       // where to read it from otherwise,
  uint64_t offset = 0;              // and where in it
  uint64_t stride = 0;              // from one row to the next
  uint64_t destination = 0;         // where the run belongs in a row
  uint64_t size = 0;
};

// Consecutive rows whose bytes come from the same slices.
struct RowGroup {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<RowSegment> segments;  // together they are the whole row
  std::exception_ptr fault;          // why the rows cannot be read; they have no segments then
};

// The bands of a tensor, in order, without a gap, and what keeps their memory alive.
struct RowLayout {
  std::vector<RowGroup> bands;
  uint64_t row_size = 0;
  std::vector<std::shared_ptr<const Mapping>> mappings;
  std::vector<const File*> mapped_files;  // must not have shrunk when their rows are touched
  std::vector<std::unique_ptr<std::vector<uint8_t>>> decoded;
  bool has_faults = false;

  // The band of a row that the tensor has.
  const RowGroup& At(int64_t row) const;

  // Throws what is wrong with the band of the row, if anything is.
  void RequireRow(int64_t row) const {
    if (!has_faults) return;
    if (const std::exception_ptr& fault = At(row).fault) std::rethrow_exception(fault);
  }
};

// Lays out the rows of a tensor of rank 1 or more and fixed element size. Maps files where the
// checkpoint's mode allows it, decodes slices that are stored encoded, and leaves the rest to be
// read row by row. Rows that are stored nowhere or twice, or lie in files that are missing, short
// or foreign, are bands with a fault: the others can be read. Throws UnsupportedError for other
// tensors and for slices in a pattern that would take too much time.
RowLayout LayOutRows(const Checkpoint& checkpoint, const Tensor& tensor);

}  // namespace tensorbundle
