// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/gather.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/row_copy.h"

namespace tensorbundle {
namespace {

// The numbers are checked twice. The first pass looks at all of them, so that nothing is written
// when one is wrong. The second pass reads each number once, checks it, and copies the row:
// whatever happens to the caller's memory in between, no address outside the table is computed.
template <typename Id>
class Gatherer {
 public:
  Gatherer(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& bands,
           std::span<const Id> ids, const RowFillValues& fill, MutableByteSpan out)
      : tensor_(tensor),
        info_(RequireKnownType(tensor)),
        num_rows_(checkpoint.catalog().Shape(tensor)[0]),
        big_endian_(checkpoint.catalog().big_endian && info_.swap_size > 1),
        bands_(bands),
        ids_(ids),
        fill_(fill),
        out_(out) {}

  // Looks at all numbers. Nothing is written.
  void CheckAll(int threads) {
    missing_before_.assign(NumTasks() + 1, 0);
    ParallelFor(NumTasks(), threads,
                [this](size_t task) { missing_before_[task + 1] = Check(task); });
    for (size_t task = 0; task < NumTasks(); ++task) {
      missing_before_[task + 1] += missing_before_[task];
    }
  }

  void Run(int threads) {
    CheckAll(threads);
    CheckFill();
    if (out_.empty()) return;
    for (const File* file : bands_.mapped_files) file->CheckNotShrunk();
    ParallelFor(NumTasks(), threads, [this](size_t task) { Copy(task); });
  }

 private:
  size_t NumTasks() const { return (ids_.size() + kRowsPerTask - 1) / kRowsPerTask; }

  std::span<const Id> IdsOf(size_t task) const {
    const size_t begin = task * kRowsPerTask;
    return ids_.subspan(begin, std::min(kRowsPerTask, ids_.size() - begin));
  }

  // The least number that is a row or a missing one. An unsigned number beyond int64 turns negative
  // when it is looked at as one, so none of those may be.
  int64_t Least() const {
    if (std::is_unsigned_v<Id>) return 0;
    return fill_.kind == RowFillValues::Kind::kNone ? -num_rows_ : -1;
  }

  // Looks at the numbers of one task and counts its missing rows.
  uint64_t Check(size_t task) const {
    const std::span<const Id> ids = IdsOf(task);
    // Bit 63 of `outside` is set if a number minus the least one is negative or beyond the last
    // one. No comparison of 64-bit integers: baseline x86-64 has none for vectors.
    const auto least = static_cast<uint64_t>(Least());
    const uint64_t last = static_cast<uint64_t>(num_rows_) - 1 - least;
    uint64_t missing = 0;
    uint64_t outside = 0;
    for (const Id id : ids) {
      const auto row = static_cast<uint64_t>(static_cast<int64_t>(id));
      outside |= (row - least) | (last - (row - least));
      missing += row >> 63;
    }
    if (outside >> 63 != 0 || bands_.has_faults) {
      const auto check = RowAt(task);
      for (size_t i = 0; i < ids.size(); ++i) check(i);
    }
    return fill_.kind == RowFillValues::Kind::kNone ? 0 : missing;
  }

  // `row` is the number as a signed one: that is how the caller wrote it, but for uint64.
  [[noreturn]] void ThrowBadId(int64_t row, size_t position) const {
    throw std::out_of_range("row " + std::to_string(static_cast<Id>(row)) + " at position " +
                            std::to_string(position) + " is not in tensor " +
                            EscapeBytes(tensor_.name) + " of " + std::to_string(num_rows_) +
                            " rows");
  }

  void CheckFill() const {
    const uint64_t missing = missing_before_.back();
    uint64_t expected = 0;
    if (fill_.kind == RowFillValues::Kind::kElement) expected = info_.item_size;
    if (fill_.kind == RowFillValues::Kind::kRow) expected = bands_.row_size;
    if (fill_.kind == RowFillValues::Kind::kRows) expected = missing * bands_.row_size;
    if (fill_.bytes.size() != expected) {
      throw std::invalid_argument("the fill has " + std::to_string(fill_.bytes.size()) +
                                  " bytes, " + std::to_string(missing) + " missing rows of " +
                                  std::to_string(bands_.row_size) + " bytes take " +
                                  std::to_string(expected));
    }
  }

  // The rows that the numbers of one task stand for, negative for a missing one. The function
  // throws std::out_of_range for a number that is no row, and what is wrong with a row that cannot
  // be read. It holds what it needs: it is called for each row.
  auto RowAt(size_t task) const {
    const auto least = static_cast<uint64_t>(Least());
    const uint64_t range = static_cast<uint64_t>(num_rows_) - least;
    const int64_t from_end = fill_.kind == RowFillValues::Kind::kNone ? num_rows_ : 0;
    const bool has_faults = bands_.has_faults;
    return [this, ids = IdsOf(task).data(), least, range, from_end, has_faults, task](size_t i) {
      const auto row = static_cast<int64_t>(ReadOnce(ids[i]));
      // One comparison tells both bounds: what is below the least number wraps around.
      if (static_cast<uint64_t>(row) - least >= range) ThrowBadId(row, task * kRowsPerTask + i);
      const int64_t found = row < 0 ? row + from_end : row;
      if (has_faults && found >= 0) bands_.RequireRow(found);
      return found;
    };
  }

  void Copy(size_t task) const {
    uint64_t missing = missing_before_[task];
    RowCopier copier(bands_, big_endian_ ? info_.swap_size : 1, HintFor(out_.size()));
    copier.Copy(
        IdsOf(task).size(), RowAt(task), [&](uint8_t* row) { Fill(missing++, row); },
        out_.data() + task * kRowsPerTask * bands_.row_size, bands_.row_size);
  }

  void Fill(uint64_t ordinal, uint8_t* out) const {
    const uint64_t row_size = bands_.row_size;
    if (fill_.kind == RowFillValues::Kind::kElement) {
      for (uint64_t at = 0; at < row_size; at += fill_.bytes.size()) {
        std::memcpy(out + at, fill_.bytes.data(), fill_.bytes.size());
      }
      return;
    }
    const uint64_t begin = fill_.kind == RowFillValues::Kind::kRows ? ordinal * row_size : 0;
    if (!RangeFits(begin, row_size, fill_.bytes.size())) {
      throw std::out_of_range("the row numbers for tensor " + EscapeBytes(tensor_.name) +
                              " changed while they were read");
    }
    std::memcpy(out, fill_.bytes.data() + begin, row_size);
  }

  const Tensor& tensor_;
  const DataTypeInfo& info_;
  const int64_t num_rows_;
  const bool big_endian_;
  const RowLayout& bands_;
  const std::span<const Id> ids_;
  const RowFillValues& fill_;
  const MutableByteSpan out_;
  std::vector<uint64_t> missing_before_;  // per task, and in all
};

}  // namespace

void CheckRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& bands,
               const RowIds& ids, RowFillValues::Kind kind, int threads) {
  const RowFillValues fill{kind, {}};
  std::visit(
      [&](auto typed) {
        using Id = typename decltype(typed)::value_type;
        Gatherer<Id>(checkpoint, tensor, bands, typed, fill, {}).CheckAll(threads);
      },
      ids);
}

void GatherRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& bands,
                const RowIds& ids, const RowFillValues& fill, MutableByteSpan out, int threads) {
  std::visit(
      [&](auto typed) {
        if (out.size() != typed.size() * bands.row_size) {
          throw std::invalid_argument("the destination has " + std::to_string(out.size()) +
                                      " bytes, the rows take " +
                                      std::to_string(typed.size() * bands.row_size));
        }
        using Id = typename decltype(typed)::value_type;
        Gatherer<Id>(checkpoint, tensor, bands, typed, fill, out).Run(threads);
      },
      ids);
}

}  // namespace tensorbundle
