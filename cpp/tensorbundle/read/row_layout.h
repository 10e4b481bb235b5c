// SPDX-License-Identifier: Apache-2.0
// Addresses of the rows of a tensor: rows are the elements of axis 0, as in an embedding table.
// Rows that come from the same slices form a group. Within a group, each contiguous segment of a
// row is at a constant stride from the same segment of the previous row, so the address of a row
// is a multiplication away.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

// One contiguous segment of every row of a group.
struct RowSegment {
  const uint8_t* memory = nullptr;  // of the group's first row, if mapped or decoded, else null
  const File* file = nullptr;       // otherwise: the file to read from
  uint64_t offset = 0;              // and the offset in it
  uint64_t stride = 0;              // from one row to the next
  uint64_t destination = 0;         // offset of the segment in a row
  uint64_t size = 0;
};

// Consecutive rows [begin, end) whose bytes come from the same slices.
struct RowGroup {
  int64_t begin = 0;
  int64_t end = 0;
  std::vector<RowSegment> segments;  // together the whole row; empty if there is an error
  std::exception_ptr error;          // why the rows cannot be read, or null
};

// The groups of a tensor, ascending and without gaps, and the owners of their memory.
// Lifetime: refers to the files of the checkpoint. Threads: immutable.
struct RowLayout {
  std::vector<RowGroup> groups;
  std::vector<int64_t> begins;  // of the groups, close together for a fast search
  uint64_t row_size = 0;        // in bytes
  std::vector<std::shared_ptr<const Mapping>> mappings;
  std::vector<const File*> mapped_files;  // call CheckNotShrunk() before their rows are touched
  std::vector<std::unique_ptr<std::vector<uint8_t>>> decoded;
  bool has_errors = false;
  bool has_requests = false;  // some rows are read by requests: use FetchRows()

  // Returns the group of a row. Requires: the tensor has the row.
  const RowGroup& At(int64_t row) const {
    // A binary search without branches: for random rows, half of the branches would be
    // mispredicted.
    const int64_t* first = begins.data();
    for (size_t left = begins.size(); left > 1;) {
      const size_t half = left / 2;
      first += static_cast<size_t>(first[half] <= row) * half;
      left -= half;
    }
    return groups[static_cast<size_t>(first - begins.data())];
  }

  // Throws the error of the row's group, if there is one. Requires: the tensor has the row.
  void RequireRow(int64_t row) const {
    if (!has_errors) return;
    if (const std::exception_ptr& error = At(row).error) std::rethrow_exception(error);
  }
};

// Rows [begin, end).
struct RowRange {
  int64_t begin = 0;
  int64_t end = INT64_MAX;

  bool Intersects(int64_t other_begin, int64_t other_end) const {
    return std::max(begin, other_begin) < std::min(end, other_end);
  }
};

// Maps files if the checkpoint's mode allows it, decodes slices that are stored encoded, and leaves
// other rows to be read one by one. Reads and verifies whole slices of files in mode kRanges. Rows
// that are stored nowhere or twice, or in files that are missing, short or foreign, become groups
// with an error: the other rows can be read. So do groups without a row in `range`, whose slices
// are not read.
//
// Requires: the tensor has rank 1 or more.
// Throws UnsupportedError for elements without a fixed size, and for slices in a pattern that would
// take too much time or memory.
RowLayout LayOutRows(const Checkpoint& checkpoint, const Tensor& tensor, RowRange range = {});

}  // namespace tensorbundle
