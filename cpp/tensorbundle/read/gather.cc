// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/gather.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/interrupt.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/fetched_rows.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/row_readahead.h"

namespace tensorbundle {
namespace {

// Bytes to prefetch at once. Prefetching into the second-level cache is not limited by the fill
// buffers of the first level. Measured with 256-byte rows: 32 rows ahead are faster than 8 or 16,
// and 64 are not faster.
constexpr uint64_t kBytesAhead = 8192;

// Rows are read ahead if one of a sample is not in the page cache. A look-up of the sample takes a
// quarter of a microsecond, and copying kRowsPerSample rows takes at least ten.
constexpr size_t kMinColdRows = 64;
constexpr size_t kRowsPerSample = 256;
constexpr size_t kMaxSamples = 32;

// About as much is read at a time for ascending rows: it stays in the processor's cache.
constexpr size_t kReadSize = size_t{1} << 20;

// Rows that are requested together: enough to keep a disk busy, and to have neighbors to join.
constexpr size_t kMaxRowsOfWindow = 4096;
constexpr uint64_t kBytesOfWindow = uint64_t{8} << 20;

}  // namespace

RowCopier::RowCopier(const RowLayout& layout, unsigned swap_unit, StoreHint hint)
    : layout_(layout),
      row_size_(layout.row_size),
      swap_unit_(swap_unit),
      hint_(swap_unit == 1 ? hint : StoreHint::kCached),
      ahead_(
          std::clamp<size_t>(kBytesAhead / std::max<uint64_t>(1, layout.row_size), 4, kMaxAhead)) {
  if (layout.groups.size() == 1 && layout.groups[0].begin == 0 &&
      layout.groups[0].segments.size() == 1) {
    base_ = layout.groups[0].segments[0].memory;
    stride_ = layout.groups[0].segments[0].stride;
  }
}

RowCopier::~RowCopier() {
  if (hint_ == StoreHint::kStreaming) FenceNontemporalStores();
}

void RowCopier::CopySegments(int64_t row, uint8_t* out) const {
  const RowGroup& group = layout_.At(row);
  for (const RowSegment& segment : group.segments) {
    const uint64_t skip = static_cast<uint64_t>(row - group.begin) * segment.stride;
    uint8_t* destination = out + segment.destination;
    if (segment.memory != nullptr) {
      std::memcpy(destination, segment.memory + skip, segment.size);
    } else {
      segment.file->ReadAt(segment.offset + skip, {destination, segment.size});
    }
  }
  SwapBytes({out, row_size_}, swap_unit_);
}

void RowCopier::SwapRows(const uint8_t* const* rows, size_t count, uint8_t* out,
                         uint64_t out_stride) const {
  for (size_t i = 0; i < count; ++i, out += out_stride) {
    if (rows[i] != nullptr) SwapBytes({out, row_size_}, swap_unit_);
  }
}

namespace {

template <typename Id>
class Gatherer {
 public:
  Gatherer(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
           std::span<const Id> ids, const RowFillValues& fill_values, MutableByteSpan out)
      : tensor_(tensor),
        info_(RequireKnownType(tensor)),
        num_rows_(checkpoint.catalog().Shape(tensor)[0]),
        swap_unit_(checkpoint.catalog().big_endian ? info_.swap_size : 1),
        layout_(layout),
        ids_(ids),
        fill_values_(fill_values),
        out_(out) {}

  // The first pass. Writes nothing.
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
    CheckFillValues();
    if (out_.empty()) return;
    if (layout_.has_requests) {
      for (size_t task = 0; task < NumTasks(); ++task) Fetch(task, threads);
      return;
    }
    for (const File* file : layout_.mapped_files) file->CheckNotShrunk();
    const Pages pages = Judge();
    if (pages == Pages::kColdInOrder) {
      const size_t rows = RowsPerPart();
      const size_t parts = (kRowsPerTask + rows - 1) / rows;
      ParallelFor(NumTasks() * parts, threads, [this, rows, parts](size_t part) {
        CopyInOrder(part / parts, part % parts * rows, rows);
      });
    } else {
      ParallelFor(NumTasks(), threads, [this, pages](size_t task) { Copy(task, pages); });
    }
  }

 private:
  size_t NumTasks() const { return (ids_.size() + kRowsPerTask - 1) / kRowsPerTask; }

  std::span<const Id> IdsOf(size_t task) const {
    const size_t begin = task * kRowsPerTask;
    return ids_.subspan(begin, std::min(kRowsPerTask, ids_.size() - begin));
  }

  // Returns the least valid number. Unsigned numbers above INT64_MAX become negative as int64_t, so
  // negative numbers are not valid for unsigned types.
  int64_t Least() const {
    if (std::is_unsigned_v<Id>) return 0;
    return fill_values_.kind == RowFillValues::Kind::kNone ? -num_rows_ : -1;
  }

  // Checks the numbers of one task. Returns how many of its rows are missing.
  uint64_t Check(size_t task) const {
    const std::span<const Id> ids = IdsOf(task);
    // Sets bit 63 of `outside` if a number is below `least` or above the last row. Uses no
    // comparison of 64-bit integers, because baseline x86-64 cannot vectorize it.
    const auto least = static_cast<uint64_t>(Least());
    const uint64_t last = static_cast<uint64_t>(num_rows_) - 1 - least;
    uint64_t missing = 0;
    uint64_t outside = 0;
    for (const Id id : ids) {
      const auto row = static_cast<uint64_t>(static_cast<int64_t>(id));
      outside |= (row - least) | (last - (row - least));
      missing += row >> 63;
    }
    if (outside >> 63 != 0 || layout_.has_errors) {
      const auto check = RowAt(task);
      for (size_t i = 0; i < ids.size(); ++i) check(i);
    }
    return fill_values_.kind == RowFillValues::Kind::kNone ? 0 : missing;
  }

  // Prints `row` in the caller's type.
  [[noreturn]] void ThrowBadId(int64_t row, size_t position) const {
    throw std::out_of_range("row " + std::to_string(static_cast<Id>(row)) + " at position " +
                            std::to_string(position) + " is not in tensor " +
                            EscapeBytes(tensor_.name) + " of " + std::to_string(num_rows_) +
                            " rows");
  }

  void CheckFillValues() const {
    const uint64_t missing = missing_before_.back();
    uint64_t expected = 0;
    if (fill_values_.kind == RowFillValues::Kind::kElement) expected = info_.item_size;
    if (fill_values_.kind == RowFillValues::Kind::kRow) expected = layout_.row_size;
    if (fill_values_.kind == RowFillValues::Kind::kRows) expected = missing * layout_.row_size;
    if (fill_values_.bytes.size() != expected) {
      throw std::invalid_argument(
          "the fill values have " + std::to_string(fill_values_.bytes.size()) + " bytes, " +
          std::to_string(missing) + " missing rows of " + std::to_string(layout_.row_size) +
          " bytes take " + std::to_string(expected));
    }
  }

  // Returns a function that returns the i-th row of a task, negative for a missing row. It throws
  // std::out_of_range for a number that is not a row, and the error of a row that cannot be read.
  // It is called for each row, so it captures everything that it needs.
  auto RowAt(size_t task) const {
    const auto least = static_cast<uint64_t>(Least());
    const uint64_t range = static_cast<uint64_t>(num_rows_) - least;
    const int64_t from_end = fill_values_.kind == RowFillValues::Kind::kNone ? num_rows_ : 0;
    const bool has_errors = layout_.has_errors;
    return [this, ids = IdsOf(task).data(), least, range, from_end, has_errors, task](size_t i) {
      const auto row = static_cast<int64_t>(ReadOnce(ids[i]));
      // One comparison checks both bounds: numbers below the least one wrap around.
      if (static_cast<uint64_t>(row) - least >= range) ThrowBadId(row, task * kRowsPerTask + i);
      const int64_t found = row < 0 ? row + from_end : row;
      if (has_errors && found >= 0) layout_.RequireRow(found);
      return found;
    };
  }

  // Returns rows of a task, as RowAt(). They are read once, because the caller's may change.
  std::vector<int64_t> RowsOf(size_t task, size_t begin, size_t count) const {
    const auto row_at = RowAt(task);
    std::vector<int64_t> rows(count);
    for (size_t i = 0; i < count; ++i) rows[i] = row_at(begin + i);
    return rows;
  }

  // Where the rows are, judged by a sample of them.
  enum class Pages {
    kWarm,         // in the page cache
    kCold,         // some are on the disk
    kColdInOrder,  // the same, and the rows are ascending with short gaps between them
  };

  Pages Judge() const {
    if (ids_.size() < kMinColdRows || layout_.mapped_files.empty()) return Pages::kWarm;
    const size_t step = std::max(kRowsPerSample, ids_.size() / kMaxSamples);
    bool is_missing = false;
    bool is_ascending = true;
    int64_t previous = -1;
    for (size_t i = 0; i < ids_.size(); i += step) {
      const int64_t row = RowAt(i / kRowsPerTask)(i % kRowsPerTask);
      if (row < 0) continue;
      is_missing = is_missing || RowReadahead::IsMissing(layout_, row);
      is_ascending = is_ascending && row > previous;
      previous = row;
    }
    if (!is_missing) return Pages::kWarm;
    return is_ascending && BytesPerRow() <= kMaxReadaheadGap ? Pages::kColdInOrder : Pages::kCold;
  }

  // Bytes of the table for each row that is wanted.
  uint64_t BytesPerRow() const {
    return std::max<uint64_t>(1, static_cast<uint64_t>(num_rows_) / ids_.size()) * layout_.row_size;
  }

  // How many rows CopyInOrder() copies: so few that the threads, which take parts of a task in
  // turn, read the file front to back. All of a task if only its first fill row is known.
  size_t RowsPerPart() const {
    if (fill_values_.kind == RowFillValues::Kind::kRows) return kRowsPerTask;
    return static_cast<size_t>(std::clamp<uint64_t>(kReadSize / BytesPerRow(), 16, kRowsPerTask));
  }

  // As Copy(), for rows that are read by requests.
  void Fetch(size_t task, int threads) const {
    const size_t count = IdsOf(task).size();
    const size_t window = RowsPerFetch(layout_);
    uint8_t* out = out_.data() + task * kRowsPerTask * layout_.row_size;
    uint64_t fills = missing_before_[task];
    for (size_t begin = 0; begin < count; begin += window) {
      const size_t size = std::min(window, count - begin);
      const std::vector<int64_t> rows = RowsOf(task, begin, size);
      const RowLayout fetched = FetchRows(layout_, rows, threads);
      RowCopier(fetched, swap_unit_, StoreHint::kCached)
          .Copy(
              size, [&](size_t i) { return rows[i]; }, [&](uint8_t* row) { Fill(fills++, row); },
              out + begin * layout_.row_size, layout_.row_size);
    }
  }

  // Reads rows of a task from `begin` on, which are about ascending, with what is between them, and
  // copies them from the buffer. The system reads ahead of such reads, but hardly of page faults.
  void CopyInOrder(size_t task, size_t begin, size_t most) const {
    const size_t all = IdsOf(task).size();
    if (begin >= all) return;
    const size_t count = std::min(most, all - begin);
    uint8_t* out = out_.data() + (task * kRowsPerTask + begin) * layout_.row_size;
    uint64_t fills = missing_before_[task];
    const auto fill = [&](uint8_t* row) { Fill(fills++, row); };
    const auto memory = std::make_unique_for_overwrite<uint8_t[]>(2 * kReadSize);
    const MutableByteSpan buffer(memory.get(), 2 * kReadSize);
    const std::vector<int64_t> rows = RowsOf(task, begin, count);
    for (size_t first = 0, next = 0; first < count; first = next) {
      if (first > 0) CheckInterrupt();
      const RowLayout read = ReadRows(rows, first, &next, buffer);
      const RowCopier copier(read.groups.empty() ? layout_ : read, swap_unit_,
                             HintFor(out_.size()));
      copier.Copy(
          next - first, [&](size_t i) { return rows[first + i]; }, fill,
          out + first * layout_.row_size, layout_.row_size);
    }
  }

  // Reads the rows from `first` on that fit into the buffer. Sets `next` to the first of the
  // others. Returns the layout of the buffer, or an empty layout for rows that are copied
  // otherwise: those that are not ascending, not mapped, or in several segments.
  RowLayout ReadRows(const std::vector<int64_t>& rows, size_t first, size_t* next,
                     MutableByteSpan buffer) const {
    RowLayout read;
    read.row_size = layout_.row_size;
    *next = first + 1;
    if (rows[first] < 0) return read;
    const RowGroup& group = layout_.At(rows[first]);
    const RowSegment* segment = group.segments.data();
    if (group.segments.size() != 1 || segment->memory == nullptr || segment->file == nullptr ||
        segment->size > buffer.size()) {
      return read;
    }
    const uint64_t most_rows = (buffer.size() - segment->size) / segment->stride + 1;
    int64_t last = rows[first];
    for (; *next < rows.size(); ++*next) {
      const int64_t row = rows[*next];
      if (row < 0) continue;
      if (row < last || row >= group.end || static_cast<uint64_t>(row - rows[first]) >= most_rows) {
        break;
      }
      last = row;
    }
    const uint64_t size =
        static_cast<uint64_t>(last - rows[first]) * segment->stride + segment->size;
    segment->file->ReadAt(
        segment->offset + static_cast<uint64_t>(rows[first] - group.begin) * segment->stride,
        buffer.first(size));
    RowGroup in_buffer{rows[first], last + 1, {}, nullptr};
    in_buffer.segments.push_back(
        {buffer.data(), nullptr, 0, segment->stride, segment->destination, segment->size});
    read.begins.push_back(in_buffer.begin);
    read.groups.push_back(std::move(in_buffer));
    return read;
  }

  void Copy(size_t task, Pages pages) const {
    const auto row_at = RowAt(task);
    const size_t count = IdsOf(task).size();
    uint8_t* out = out_.data() + task * kRowsPerTask * layout_.row_size;
    uint64_t missing = missing_before_[task];
    const auto fill = [&](uint8_t* row) { Fill(missing++, row); };
    RowCopier copier(layout_, swap_unit_, HintFor(out_.size()));
    const size_t step = RowsPerCheck(layout_.row_size);
    const auto copy = [&](size_t begin, size_t end) {
      for (size_t first = begin; first < end; first += step) {
        if (first > 0) CheckInterrupt();
        copier.Copy(
            std::min(step, end - first), [&](size_t i) { return row_at(first + i); }, fill,
            out + first * layout_.row_size, layout_.row_size);
      }
    };
    if (pages == Pages::kWarm) return copy(0, count);

    // While the rows of a window are copied, those of the next one are being read.
    const auto window = static_cast<size_t>(
        std::clamp<uint64_t>(kBytesOfWindow / layout_.row_size, 16, kMaxRowsOfWindow));
    RowReadahead readahead(layout_);
    const auto start_reading = [&](size_t begin) {
      for (size_t i = begin; i < std::min(begin + window, count); ++i) {
        if (const int64_t row = row_at(i); row >= 0) readahead.Add(row);
      }
      readahead.Start();
    };
    start_reading(0);
    for (size_t begin = 0; begin < count; begin += window) {
      if (begin + window < count) start_reading(begin + window);
      copy(begin, std::min(begin + window, count));
    }
  }

  void Fill(uint64_t ordinal, uint8_t* out) const {
    const uint64_t row_size = layout_.row_size;
    if (fill_values_.kind == RowFillValues::Kind::kElement) {
      for (uint64_t at = 0; at < row_size; at += fill_values_.bytes.size()) {
        std::memcpy(out + at, fill_values_.bytes.data(), fill_values_.bytes.size());
      }
      return;
    }
    const uint64_t begin = fill_values_.kind == RowFillValues::Kind::kRows ? ordinal * row_size : 0;
    if (!RangeFits(begin, row_size, fill_values_.bytes.size())) {
      throw std::out_of_range("the row numbers for tensor " + EscapeBytes(tensor_.name) +
                              " changed while they were read");
    }
    std::memcpy(out, fill_values_.bytes.data() + begin, row_size);
  }

  const Tensor& tensor_;
  const DataTypeInfo& info_;
  const int64_t num_rows_;
  const unsigned swap_unit_;  // bytes to reverse together, 1 for none
  const RowLayout& layout_;
  const std::span<const Id> ids_;
  const RowFillValues& fill_values_;
  const MutableByteSpan out_;
  std::vector<uint64_t> missing_before_;  // rows before each task, and in total
};

}  // namespace

void CheckRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
               const RowIds& ids, RowFillValues::Kind kind, int threads) {
  const RowFillValues fill_values{kind, {}};
  std::visit(
      [&](auto typed) {
        using Id = typename decltype(typed)::value_type;
        Gatherer<Id>(checkpoint, tensor, layout, typed, fill_values, {}).CheckAll(threads);
      },
      ids);
}

void GatherRows(const Checkpoint& checkpoint, const Tensor& tensor, const RowLayout& layout,
                const RowIds& ids, const RowFillValues& fill_values, MutableByteSpan out,
                int threads) {
  std::visit(
      [&](auto typed) {
        if (out.size() != typed.size() * layout.row_size) {
          throw std::invalid_argument("the destination has " + std::to_string(out.size()) +
                                      " bytes, the rows take " +
                                      std::to_string(typed.size() * layout.row_size));
        }
        using Id = typename decltype(typed)::value_type;
        Gatherer<Id>(checkpoint, tensor, layout, typed, fill_values, out).Run(threads);
      },
      ids);
}

}  // namespace tensorbundle
