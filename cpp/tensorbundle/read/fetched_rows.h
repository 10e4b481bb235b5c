// SPDX-License-Identifier: Apache-2.0
// Rows of a table whose files are read by requests: the ranges of many rows are sorted, joined
// where the gaps are short, and requested together, several at a time. The result is a RowLayout
// over memory, from which gathers and remaps copy as from a mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// Reads the rows into memory, with their bytes as they are stored. `rows` may be in any order and
// have duplicates; negative numbers, which stand for missing rows, are ignored. The layout of the
// result has these rows only, and no error.
// Requires: the table has the other rows, and none of them has an error in `layout`.
// Throws: what File::ReadAt throws.
RowLayout FetchRows(const RowLayout& layout, std::vector<int64_t> rows, int threads);

// Rows to fetch at a time: together they take at most 64 MiB, unless one is larger.
size_t RowsPerFetch(const RowLayout& layout);

}  // namespace tensorbundle
