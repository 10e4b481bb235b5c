// SPDX-License-Identifier: Apache-2.0
// Rows by number.
#pragma once

#include <cstdint>
#include <span>
#include <variant>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// Row numbers, as the caller has them.
using RowIds = std::variant<std::span<const int32_t>, std::span<const int64_t>,
                            std::span<const uint32_t>, std::span<const uint64_t>>;

// What becomes of negative row numbers.
struct RowFillValues {
  enum class Kind {
    kNone,     // they count from the end, as in NumPy
    kElement,  // -1 is a missing row, every element of which is `bytes`
    kRow,      // -1 is a missing row, which is `bytes`
    kRows,     // the missing rows are taken from `bytes`, one after another
  };
  Kind kind = Kind::kNone;
  ByteSpan bytes;  // of the destination's byte order
};

// Throws what GatherRows would throw for the numbers, before there is any memory for the rows.
void CheckRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& bands,
               const RowIds& ids, RowFillValues::Kind kind, int threads);

// Copies the rows to `out`, which has exactly their size. Every number is checked before anything
// is written. Memory that changes meanwhile (another thread writes to the numbers or the fill, or
// they are part of `out`) gives other rows or std::out_of_range, and no access outside the table.
// Threads share the rows; each has the next ones on their way from memory while it copies. Throws
// std::out_of_range for a number that is no row; what is wrong with a row that cannot be read;
// std::invalid_argument when `fill` has another size than it must have; as File::ReadAt where rows
// are read and not mapped.
void GatherRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& bands,
                const RowIds& ids, const RowFillValues& fill, MutableByteSpan out, int threads);

}  // namespace tensorbundle
