// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/remap.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/interrupt.h"
#include "tensorbundle/base/nontemporal_copy.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/io/uffd_buffer.h"
#include "tensorbundle/read/fetched_rows.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/read_box.h"

namespace tensorbundle {

namespace {

// A permutation of columns, some of them missing. A column of a row is the `cell_size` bytes of one
// element of axis 1. Threads: immutable.
class ColumnOrder {
 public:
  // Keeps all columns in place.
  static ColumnOrder Identity(uint64_t row_size);

  // New column i is old column columns[i], or missing if that is -1. The caller must check the
  // numbers before it calls Apply().
  ColumnOrder(std::span<const int64_t> columns, uint64_t cell_size);

  // Bytes of a new row that come from no old column.
  struct Gap {
    uint64_t destination;
    uint64_t size;
  };

  bool is_identity() const { return is_identity_; }
  uint64_t new_row_size() const { return new_row_size_; }
  uint64_t missing_size() const { return missing_size_; }
  const std::vector<Gap>& gaps() const { return gaps_; }

  // Copies the columns of an old row into a new row. Does not write to the gaps.
  void Apply(const uint8_t* old_row, uint8_t* new_row) const;

 private:
  // Adjacent columns that stay adjacent.
  struct Span {
    uint64_t source;
    uint64_t destination;
    uint64_t size;
  };
  ColumnOrder() = default;

  bool is_identity_ = false;
  uint64_t new_row_size_ = 0;
  uint64_t missing_size_ = 0;
  std::vector<Span> spans_;
  std::vector<Gap> gaps_;
};

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
      const bool is_adjacent =
          !gaps_.empty() && gaps_.back().destination + gaps_.back().size == destination;
      if (is_adjacent) {
        gaps_.back().size += cell_size;
      } else {
        gaps_.push_back({destination, cell_size});
      }
      continue;
    }
    const uint64_t source = static_cast<uint64_t>(columns[i]) * cell_size;
    const bool is_adjacent = !spans_.empty() &&
                             spans_.back().source + spans_.back().size == source &&
                             spans_.back().destination + spans_.back().size == destination;
    if (is_adjacent) {
      spans_.back().size += cell_size;
    } else {
      spans_.push_back({source, destination, cell_size});
    }
  }
}

void ColumnOrder::Apply(const uint8_t* old_row, uint8_t* new_row) const {
  for (const Span& span : spans_) {
    // Most spans are one float: a memcpy of constant size is a move, not a call.
    if (span.size == sizeof(uint32_t)) {
      std::memcpy(new_row + span.destination, old_row + span.source, sizeof(uint32_t));
    } else {
      std::memcpy(new_row + span.destination, old_row + span.source, span.size);
    }
  }
}

// Size of the buffer for rows whose columns are reordered. It stays in the second-level cache.
constexpr uint64_t kScratchSize = uint64_t{128} << 10;

// Size of the buffer for new rows that are written page by page. Longer rows are written in place.
// Small enough for the second-level cache, and for malloc() to reuse it.
constexpr uint64_t kPagesSize = uint64_t{96} << 10;
constexpr uint64_t kMaxRowInPages = kPagesSize / 4;

// An element of fill values is repeated up to this size.
constexpr uint64_t kMaxPattern = 4096;

[[noreturn]] void ThrowChanged(const Tensor& tensor) {
  throw std::out_of_range("the row numbers for tensor " + EscapeBytes(tensor.name) +
                          " changed while they were read");
}

// Counts -1 among the numbers of one axis. Throws std::out_of_range for any other number outside
// the axis; `position` is that of the first number, for the message.
uint64_t CountMissing(const Tensor& tensor, std::span<const int64_t> ids, int64_t size,
                      const char* axis, size_t position) {
  uint64_t missing = 0;
  for (const int64_t id : ids) {
    missing += id == -1;
    if (id < -1 || id >= size) {
      throw std::out_of_range(std::string(axis) + " " + std::to_string(id) + " at position " +
                              std::to_string(position) + " is not in tensor " +
                              EscapeBytes(tensor.name) + ", which has " + std::to_string(size));
    }
    ++position;
  }
  return missing;
}

class Remapper {
 public:
  Remapper(const Checkpoint& checkpoint, const Tensor& tensor, const Remapping& remapping)
      : tensor_(tensor),
        info_(RequireKnownType(tensor)),
        shape_(checkpoint.catalog().Shape(tensor)),
        remapping_(remapping),
        columns_(ColumnOrderOf(tensor, shape_, remapping, info_.item_size)),
        swap_unit_(checkpoint.catalog().big_endian ? info_.swap_size : 1) {}

  // Checks all numbers and returns the number of missing elements. Allocates memory in proportion
  // to the caller's row numbers, never to a shape in the checkpoint.
  uint64_t Count(int threads) {
    if (!remapping_.rows) return CountPlain() / info_.item_size;
    missing_before_.assign(NumTasks() + 1, 0);
    ParallelFor(NumTasks(), threads, [this](size_t task) {
      const uint64_t rows = RowsOf(task);
      const uint64_t missing =
          CountMissing(tensor_, remapping_.rows->subspan(task * kRowsPerTask, rows), shape_[0],
                       "row", task * kRowsPerTask);
      missing_before_[task + 1] =
          missing * columns_.new_row_size() + (rows - missing) * columns_.missing_size();
    });
    for (size_t task = 0; task < NumTasks(); ++task)
      missing_before_[task + 1] += missing_before_[task];
    return missing_before_.back() / info_.item_size;
  }

  // Throws the error of the first requested row that cannot be read.
  void RequireRows(const RowLayout& layout) const {
    if (!layout.has_errors) return;
    if (!remapping_.rows) {
      const auto end = static_cast<int64_t>(remapping_.first_row + remapping_.num_rows);
      for (auto row = static_cast<int64_t>(remapping_.first_row); row < end;) {
        layout.RequireRow(row);
        row = layout.At(row).end;
      }
      return;
    }
    for (const int64_t& id : *remapping_.rows) {
      const int64_t row = ReadOnce(id);
      if (row >= 0 && row < shape_[0]) layout.RequireRow(row);
    }
  }

  void Run(const RowLayout& layout, const CellFillValues& fill_values, MutableByteSpan out,
           uint64_t out_stride, int threads, bool fresh) {
    const uint64_t missing = Count(threads);
    const uint64_t expected = FillValuesSize(fill_values.kind, missing, out.size());
    if (fill_values.bytes.size() != expected) {
      throw std::invalid_argument(
          "the fill values have " + std::to_string(fill_values.bytes.size()) + " bytes, the " +
          std::to_string(missing) + " missing cells take " + std::to_string(expected));
    }
    const uint64_t last = remapping_.num_rows == 0 ? 0 : (remapping_.num_rows - 1) * out_stride;
    if (remapping_.num_rows > 0 && out.size() < last + columns_.new_row_size()) {
      throw std::invalid_argument("the destination has only " + std::to_string(out.size()) +
                                  " bytes");
    }
    RequireRows(layout);
    if (columns_.new_row_size() == 0) return;
    for (const File* file : layout.mapped_files) file->CheckNotShrunk();
    const std::vector<uint8_t> pattern = PatternOf(fill_values);
    const StoreHint hint = columns_.is_identity() ? HintFor(out.size()) : StoreHint::kCached;
    if (layout.row_size == 0) {  // the table has no columns, and the layout no rows
      FillCursor fill(tensor_, fill_values, pattern, 0, out.data(), hint);
      for (uint64_t row = 0; row < remapping_.num_rows; ++row) {
        fill.Write(out.data() + row * out_stride, columns_.new_row_size());
      }
      return;
    }
    if (layout.has_requests) {
      for (size_t task = 0; task < NumTasks(); ++task) {
        FillCursor fill(tensor_, fill_values, pattern, MissingBefore(task), out.data(), hint);
        FetchTask(layout, task, &fill, out, out_stride, threads);
      }
      return;
    }
    const bool by_pages = fresh && fill_values.kind != CellFillValues::Kind::kPlaces &&
                          out_stride == columns_.new_row_size() && out_stride <= kMaxRowInPages;
    UffdBuffer pages(by_pages ? out : MutableByteSpan());
    ParallelFor(NumTasks(), threads, [&](size_t task) {
      if (pages.is_enabled()) {
        FillCursor fill(tensor_, fill_values, pattern, MissingBefore(task), out.data(),
                        StoreHint::kCached);
        WritePages(layout, task, &fill, out, &pages);
      } else {
        FillCursor fill(tensor_, fill_values, pattern, MissingBefore(task), out.data(), hint);
        const uint64_t first = task * kRowsPerTask;
        WriteRows(layout, first, RowsOf(task), &fill, out.data() + first * out_stride, out_stride,
                  hint);
      }
    });
  }

 private:
  // Writes fill values in order. Lifetime: refers to its arguments.
  class FillCursor {
   public:
    FillCursor(const Tensor& tensor, const CellFillValues& fill_values, ByteSpan pattern,
               uint64_t used, const uint8_t* destination, StoreHint hint)
        : tensor_(tensor),
          fill_values_(fill_values),
          pattern_(pattern),
          destination_(destination),
          used_(used),
          hint_(hint) {}

    void Write(uint8_t* out, uint64_t size) {
      switch (fill_values_.kind) {
        case CellFillValues::Kind::kElement:
          for (uint64_t done = 0; done < size; done += pattern_.size()) {
            Copy(out + done, pattern_.data(), std::min<uint64_t>(size - done, pattern_.size()));
          }
          break;
        case CellFillValues::Kind::kCells:
          if (!RangeFits(used_, size, fill_values_.bytes.size())) ThrowChanged(tensor_);
          Copy(out, fill_values_.bytes.data() + used_, size);
          used_ += size;
          break;
        case CellFillValues::Kind::kPlaces: {
          const uint8_t* in = fill_values_.bytes.data() + (out - destination_);
          if (in != out) Copy(out, in, size);
          break;
        }
      }
    }

   private:
    void Copy(uint8_t* out, const uint8_t* in, uint64_t size) const {
      if (hint_ == StoreHint::kStreaming) {
        NontemporalCopy(out, in, size);
      } else {
        std::memcpy(out, in, size);
      }
    }

    const Tensor& tensor_;
    const CellFillValues& fill_values_;
    const ByteSpan pattern_;
    const uint8_t* const destination_;
    uint64_t used_;  // bytes of kCells so far
    const StoreHint hint_;
  };

  // Returns the element of kElement repeated as often as a row needs it, so that filling a row
  // takes one copy, not one per element.
  std::vector<uint8_t> PatternOf(const CellFillValues& fill_values) const {
    if (fill_values.kind != CellFillValues::Kind::kElement) return {};
    const uint64_t row = columns_.new_row_size();
    const uint64_t count = std::min(row, kMaxPattern) / info_.item_size;
    std::vector<uint8_t> pattern(std::max<uint64_t>(count, 1) * info_.item_size);
    for (size_t at = 0; at < pattern.size(); at += info_.item_size) {
      std::memcpy(pattern.data() + at, fill_values.bytes.data(), info_.item_size);
    }
    return pattern;
  }

  uint64_t FillValuesSize(CellFillValues::Kind kind, uint64_t missing, uint64_t out_size) const {
    if (kind == CellFillValues::Kind::kPlaces) return out_size;
    return kind == CellFillValues::Kind::kElement ? info_.item_size : missing * info_.item_size;
  }

  size_t NumTasks() const {
    return static_cast<size_t>((remapping_.num_rows + kRowsPerTask - 1) / kRowsPerTask);
  }

  // Returns the missing bytes if no row numbers are given: every row lacks the same columns.
  uint64_t CountPlain() const {
    CheckPlainRows();
    const std::optional<uint64_t> missing =
        CheckedMul(remapping_.num_rows, columns_.missing_size());
    if (missing) return *missing;
    throw std::invalid_argument("tensor " + EscapeBytes(tensor_.name) +
                                " would have more missing cells than can be counted");
  }

  uint64_t MissingBefore(size_t task) const {
    return remapping_.rows ? missing_before_[task] : task * kRowsPerTask * columns_.missing_size();
  }

  uint64_t RowsOf(size_t task) const {
    return std::min<uint64_t>(kRowsPerTask, remapping_.num_rows - task * kRowsPerTask);
  }

  // Returns a function that returns the old row, or -1, of the i-th new row from `first` on. It
  // throws std::out_of_range for a number that is not a row. It is called for each row, so it
  // captures everything that it needs.
  auto RowAt(const RowLayout& layout, uint64_t first) const {
    const int64_t* ids = remapping_.rows ? remapping_.rows->data() : nullptr;
    const auto plain = static_cast<int64_t>(remapping_.first_row + first);
    return [this, &layout, ids, plain, first, num_rows = shape_[0]](size_t i) {
      if (ids == nullptr) return plain + static_cast<int64_t>(i);  // checked as a whole
      const int64_t row = ReadOnce(ids[first + i]);
      if (static_cast<uint64_t>(row + 1) > static_cast<uint64_t>(num_rows)) {
        CountMissing(tensor_, {&row, 1}, num_rows, "row", first + i);  // throws
      }
      if (row >= 0) layout.RequireRow(row);
      return row;
    };
  }

  void CheckPlainRows() const {
    if (RangeFits(remapping_.first_row, remapping_.num_rows, static_cast<uint64_t>(shape_[0]))) {
      return;
    }
    throw std::out_of_range("tensor " + EscapeBytes(tensor_.name) + " has " +
                            std::to_string(shape_[0]) + " rows, fewer than the " +
                            std::to_string(remapping_.num_rows) + " wanted from row " +
                            std::to_string(remapping_.first_row) + " on");
  }

  // Writes the rows of a task, which are read by requests.
  void FetchTask(const RowLayout& layout, size_t task, FillCursor* fill, MutableByteSpan out,
                 uint64_t out_stride, int threads) const {
    const uint64_t window = RowsPerFetch(layout);
    const uint64_t end = task * kRowsPerTask + RowsOf(task);
    for (uint64_t first = task * kRowsPerTask; first < end; first += window) {
      const uint64_t count = std::min(window, end - first);
      std::vector<int64_t> rows;  // read once: the numbers may change
      rows.reserve(count);
      const auto row_at = RowAt(layout, first);
      for (uint64_t i = 0; i < count; ++i) rows.push_back(row_at(i));
      const RowLayout fetched = FetchRows(layout, rows, threads);
      const auto rows_from = [&](uint64_t done) {
        return [next = rows.data() + done](size_t i) { return next[i]; };
      };
      WriteRowsFrom(fetched, rows_from, count, fill, out.data() + first * out_stride, out_stride,
                    StoreHint::kCached);
    }
  }

  // Writes `count` new rows from `first` on, `out_stride` bytes from one to the next.
  void WriteRows(const RowLayout& layout, uint64_t first, uint64_t count, FillCursor* fill,
                 uint8_t* out, uint64_t out_stride, StoreHint hint) const {
    const auto rows_from = [&](uint64_t done) { return RowAt(layout, first + done); };
    WriteRowsFrom(layout, rows_from, count, fill, out, out_stride, hint);
  }

  // As above. rows_from(done) returns a function that returns the old row, or -1, of the i-th new
  // row after `done` ones.
  template <typename RowsFrom>
  void WriteRowsFrom(const RowLayout& layout, const RowsFrom& rows_from, uint64_t count,
                     FillCursor* fill, uint8_t* out, uint64_t out_stride, StoreHint hint) const {
    if (columns_.is_identity()) {
      RowCopier copier(layout, swap_unit_, hint);
      const uint64_t window = RowsPerCheck(layout.row_size);
      for (uint64_t done = 0; done < count; done += window) {
        if (done > 0) CheckInterrupt();
        copier.Copy(
            std::min(window, count - done), rows_from(done),
            [&](uint8_t* row) { fill->Write(row, layout.row_size); }, out + done * out_stride,
            out_stride);
      }
    } else {
      OrderRows(layout, rows_from, count, fill, out, out_stride);
    }
  }

  // Writes the pages of `out` that begin in the rows of a task. The last of them may contain rows
  // of the next task, which are copied twice: tasks must share no page.
  void WritePages(const RowLayout& layout, size_t task, FillCursor* fill, MutableByteSpan out,
                  UffdBuffer* pages) const {
    const uint64_t row_size = columns_.new_row_size();
    const auto page_at = [&](uint64_t offset) {
      const uint64_t size = out.size();
      return offset == 0 ? 0 : std::min(size, offset + UffdBuffer::UntilPage(out.data() + offset));
    };
    uint64_t row = task * kRowsPerTask;
    const uint64_t begin = page_at(row * row_size);
    const uint64_t end = page_at((row + RowsOf(task)) * row_size);
    PageBuffer buffer(kPagesSize);
    uint64_t at = row * row_size;  // the offset in `out` of the first byte of the buffer
    uint64_t kept = 0;             // bytes in the buffer
    while (at + kept < end) {
      const uint64_t left = (end - at - kept + row_size - 1) / row_size;
      const uint64_t count = std::min(left, (kPagesSize - kept) / row_size);
      WriteRows(layout, row, count, fill, buffer.data() + kept, row_size, StoreHint::kCached);
      row += count;
      kept += count * row_size;
      // Whole pages, but for the ends of `out`.
      const uint64_t from = std::max(at, begin);
      const uint64_t copied = at + kept;
      const uint64_t stop =
          copied >= end ? end : copied - UffdBuffer::SincePage(out.data() + copied);
      if (stop > from) pages->Write(out.data() + from, {buffer.data() + (from - at), stop - from});
      const uint64_t written = std::max(stop, at) - at;
      std::memmove(buffer.data(), buffer.data() + written, kept - written);
      at += written;
      kept -= written;
    }
  }

  // Copies batches of whole rows into a buffer, and their columns from there.
  template <typename RowsFrom>
  void OrderRows(const RowLayout& layout, const RowsFrom& rows_from, uint64_t num_rows,
                 FillCursor* fill, uint8_t* out, uint64_t out_stride) const {
    const uint64_t row_size = std::max<uint64_t>(1, layout.row_size);
    const uint64_t batch = std::clamp<uint64_t>(kScratchSize / row_size, 1, kRowsPerTask);
    std::vector<uint8_t> scratch(batch * row_size);
    std::vector<uint8_t> is_missing(batch);
    RowCopier copier(layout, swap_unit_, StoreHint::kCached);
    for (uint64_t done = 0; done < num_rows; done += batch) {
      if (done > 0) CheckInterrupt();
      const uint64_t count = std::min(batch, num_rows - done);
      const auto row_at = [&, next = rows_from(done)](size_t i) {
        const int64_t row = next(i);
        is_missing[i] = row < 0;
        return row;
      };
      copier.Copy(count, row_at, [](uint8_t*) {}, scratch.data(), row_size);
      for (uint64_t i = 0; i < count; ++i, out += out_stride) {
        if (is_missing[i] != 0) {
          fill->Write(out, columns_.new_row_size());
          continue;
        }
        columns_.Apply(scratch.data() + i * row_size, out);
        for (const ColumnOrder::Gap& gap : columns_.gaps())
          fill->Write(out + gap.destination, gap.size);
      }
    }
  }

  static ColumnOrder ColumnOrderOf(const Tensor& tensor, std::span<const int64_t> shape,
                                   const Remapping& remapping, uint64_t item_size) {
    if (!remapping.columns) {
      uint64_t row_size = item_size;
      for (size_t axis = 1; axis < shape.size(); ++axis)
        row_size *= static_cast<uint64_t>(shape[axis]);
      return ColumnOrder::Identity(row_size);
    }
    if (shape.size() < 2) {
      throw std::invalid_argument("tensor " + EscapeBytes(tensor.name) +
                                  " has rank 1: it has no columns to remap");
    }
    uint64_t cell_size = item_size;
    for (size_t axis = 2; axis < shape.size(); ++axis)
      cell_size *= static_cast<uint64_t>(shape[axis]);
    const std::vector<int64_t> columns(remapping.columns->begin(), remapping.columns->end());
    std::atomic_signal_fence(std::memory_order_seq_cst);  // check and use the copy
    CountMissing(tensor, columns, shape[1], "column", 0);
    return ColumnOrder(columns, cell_size);
  }

  const Tensor& tensor_;
  const DataTypeInfo& info_;
  const std::span<const int64_t> shape_;
  const Remapping& remapping_;
  const ColumnOrder columns_;
  const unsigned swap_unit_;
  std::vector<uint64_t> missing_before_;  // bytes before each task, and in total; with row numbers
};

}  // namespace

void RequireRemappable(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
                       const Remapping& remapping, int threads) {
  Remapper remapper(checkpoint, tensor, remapping);
  remapper.Count(threads);  // checks the numbers
  remapper.RequireRows(layout);
}

uint64_t CountMissingCells(const Checkpoint& checkpoint, const Tensor& tensor,
                           const Remapping& remapping, int threads) {
  return Remapper(checkpoint, tensor, remapping).Count(threads);
}

void RemapTable(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
                const Remapping& remapping, const CellFillValues& fill_values, MutableByteSpan out,
                uint64_t out_stride, int threads, bool fresh) {
  Remapper(checkpoint, tensor, remapping).Run(layout, fill_values, out, out_stride, threads, fresh);
}

}  // namespace tensorbundle
