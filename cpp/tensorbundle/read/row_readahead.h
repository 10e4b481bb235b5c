// SPDX-License-Identifier: Apache-2.0
// Reading rows ahead of a gather, if their pages are not in the page cache. Accessing such rows one
// by one through a mapping waits for the disk once per row. Here the ranges of many rows are
// sorted, joined where the gaps are short, and requested together, so that the disk works on many
// requests at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "tensorbundle/io/file.h"
#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// A request costs as much of the disk's time as reading about so many bytes. Shorter gaps between
// two rows are read too.
inline constexpr uint64_t kMaxReadaheadGap = uint64_t{32} << 10;

// Collects rows and starts to read them. Lifetime: the layout must outlive the object.
// Threads: one.
class RowReadahead {
 public:
  explicit RowReadahead(const RowLayout& layout) : layout_(layout) {}

  // Whether a row begins in a page that is missing from the page cache, and is read through a
  // mapping. Requires: the tensor has the row.
  static bool IsMissing(const RowLayout& layout, int64_t row);

  // Requires: the tensor has the row.
  void Add(int64_t row);

  // Starts to read the rows that were added, and forgets them.
  void Start();

 private:
  struct Range {
    const File* file;
    uint64_t begin;
    uint64_t end;
  };
  const RowLayout& layout_;
  std::vector<Range> ranges_;
};

}  // namespace tensorbundle
