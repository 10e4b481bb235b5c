// SPDX-License-Identifier: Apache-2.0
// Where the lines of a text lie.
//
// Lines end in '\n'. What follows the last '\n' is a line as well, unless it is empty or a lone
// '\r'. The bytes are taken as they are: no encoding, no byte order mark, no trimming.
#pragma once

#include <cstdint>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/newlines.h"
#include "tensorbundle/vocab/packed_offsets.h"

namespace tensorbundle {

struct LineIndex {
  static constexpr uint64_t kNoLine = UINT64_MAX;

  uint64_t num_lines = 0;

  // num_lines + 1 of them: line i is [starts[i], starts[i + 1] - 1), its '\r' included. If the last
  // line has no
  // '\n', the last start is where it would have been after one.
  PackedOffsets starts;

  // The first line that has no bytes, or nothing but the '\r' of its end; or kNoLine.
  uint64_t first_empty = kNoLine;
};

// Reads the whole file into `text` and finds its lines, by threads. `text` has file.size() bytes,
// which is at most PackedOffsets::kMax - 1, and kTextPadding zeros behind them. Throws as
// File::ReadAt, and std::bad_alloc.
LineIndex ReadLines(const File& file, uint8_t* text, int threads);

}  // namespace tensorbundle
