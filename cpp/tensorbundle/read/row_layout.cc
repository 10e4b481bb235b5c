// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/row_layout.h"

#include <algorithm>
#include <map>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

// Grids need one segment per slice. A larger table would take as much memory as the data.
constexpr uint64_t kMaxSegments = uint64_t{1} << 22;

// Returns the segments of the slice's first row; their offsets are relative to the slice.
std::vector<RowSegment> SegmentsOfRow(const SliceOverlap& overlap, std::span<const int64_t> shape,
                                      uint64_t item_size) {
  Box row = overlap.slice_box;
  row[0].length = 1;
  Box destination = WholeBox(shape);
  destination[0] = row[0];
  const CopyLayout layout(overlap.slice_box, destination, row, item_size);
  uint64_t stride = item_size;
  for (size_t axis = 1; axis < row.size(); ++axis) {
    stride *= static_cast<uint64_t>(row[axis].length);
  }
  std::vector<RowSegment> segments;
  layout.ForEach(0, layout.count(), [&](const CopyLayout::Span& span) {
    segments.push_back(
        {nullptr, nullptr, span.source, stride, span.destination, layout.span_size()});
  });
  return segments;
}

// Returns the stored bytes of a slice that has fixed-size elements.
std::vector<uint8_t> ReadVerified(const Checkpoint& checkpoint, const Tensor& tensor,
                                  const StoredSlice& slice) {
  const bool has_checksum = StartVerify(checkpoint, tensor, slice, Delivery::kWhole);
  const File& file = checkpoint.files().Get(slice.file);
  std::vector<uint8_t> bytes(slice.size);
  uint32_t crc = 0;
  for (uint64_t done = 0; done < slice.size;) {
    const uint64_t size = std::min(slice.size - done, kMaxRangeSize);
    const MutableByteSpan chunk = MutableByteSpan(bytes).subspan(done, size);
    file.ReadAt(slice.offset + done, chunk);
    if (has_checksum) crc = crc32c::Extend(crc, chunk.data(), chunk.size());
    done += size;
  }
  if (has_checksum) FinishVerify(checkpoint, tensor, slice, crc);
  return bytes;
}

class RowLayoutBuilder {
 public:
  RowLayoutBuilder(const Checkpoint& checkpoint, const Tensor& tensor, RowRange range)
      : checkpoint_(checkpoint),
        tensor_(tensor),
        range_(range),
        shape_(checkpoint.catalog().Shape(tensor)),
        item_size_(RequireFixedSize(tensor).item_size) {}

  RowLayout Build() {
    result_.row_size = item_size_;
    for (size_t axis = 1; axis < shape_.size(); ++axis) {
      result_.row_size *= static_cast<uint64_t>(shape_[axis]);
    }
    const RowCover cover = CoverRows(checkpoint_.catalog(), tensor_);
    slices_.resize(cover.overlaps.size());
    for (const CoveredRows& rows : cover.groups) {
      RowGroup group{rows.begin, rows.end, {}, nullptr};
      try {
        if (!range_.Intersects(rows.begin, rows.end)) ThrowOutside(rows);
        if (rows.error) std::rethrow_exception(rows.error);
        for (const size_t i : rows.overlaps) AddSlice(cover.overlaps[i], &slices_[i], &group);
      } catch (const Error&) {
        group.segments.clear();
        group.error = std::current_exception();
        result_.has_errors = true;
      }
      result_.begins.push_back(group.begin);
      result_.groups.push_back(std::move(group));
    }
    return std::move(result_);
  }

 private:
  // A slice whose first group was laid out.
  struct LocatedSlice {
    std::vector<RowSegment> segments;  // of its first row, relative to the slice
    RowSegment base;                   // its first byte
    std::exception_ptr error;
    bool is_located = false;
  };

  [[noreturn]] void ThrowOutside(const CoveredRows& rows) const {
    throw UnsupportedError("rows " + std::to_string(rows.begin) + " to " +
                           std::to_string(rows.end) + " of tensor " + EscapeBytes(tensor_.name) +
                           " are outside the rows that were laid out");
  }

  // Adds the segments that a slice contributes to the rows of a group. Throws the slice's error.
  void AddSlice(const SliceOverlap& overlap, LocatedSlice* slice, RowGroup* group) {
    if (!slice->is_located) *slice = LocateSlice(overlap);
    if (slice->error) std::rethrow_exception(slice->error);
    num_segments_ += slice->segments.size();
    if (num_segments_ > kMaxSegments) {
      throw UnsupportedError("tensor " + EscapeBytes(tensor_.name) +
                             " is stored in slices that cut its rows into more than " +
                             std::to_string(kMaxSegments) + " parts; read it in boxes instead");
    }
    const int64_t first = overlap.slice_box[0].start;
    for (RowSegment segment : slice->segments) {
      const uint64_t skip =
          segment.offset + static_cast<uint64_t>(group->begin - first) * segment.stride;
      segment.memory = slice->base.memory == nullptr ? nullptr : slice->base.memory + skip;
      segment.file = slice->base.file;
      segment.offset = slice->base.offset + skip;
      group->segments.push_back(segment);
    }
  }

  LocatedSlice LocateSlice(const SliceOverlap& overlap) {
    LocatedSlice slice;
    slice.is_located = true;
    try {
      RequireReadable(checkpoint_, tensor_, *overlap.slice);
      slice.base = LocateFirstByte(*overlap.slice);
      slice.segments = SegmentsOfRow(overlap, shape_, item_size_);
    } catch (const Error&) {
      slice.error = std::current_exception();
    }
    return slice;
  }

  // Returns the slice's first byte: in memory if it is decoded or mapped, else in its file.
  RowSegment LocateFirstByte(const StoredSlice& slice) {
    RowSegment first;
    if (slice.encoding == Encoding::kRecord) {
      result_.decoded.push_back(std::make_unique<std::vector<uint8_t>>(
          checkpoint_.records()->DecodeDense(tensor_, slice)));
      first.memory = result_.decoded.back()->data();
      return first;
    }
    if (checkpoint_.files().Get(slice.file).mode() == ReadMode::kRanges) {
      result_.decoded.push_back(
          std::make_unique<std::vector<uint8_t>>(ReadVerified(checkpoint_, tensor_, slice)));
      first.memory = result_.decoded.back()->data();
      return first;
    }
    result_.has_requests |= checkpoint_.files().Get(slice.file).mode() == ReadMode::kRequests;
    const auto [known, is_new] = mapped_.try_emplace(slice.file, nullptr);
    if (is_new) {
      std::shared_ptr<const Mapping> mapping = checkpoint_.files().MapForReading(slice.file);
      if (mapping != nullptr) {
        known->second = mapping->bytes().data();
        result_.mappings.push_back(std::move(mapping));
        result_.mapped_files.push_back(&checkpoint_.files().Get(slice.file));
      }
    }
    first.memory = known->second == nullptr ? nullptr : known->second + slice.offset;
    first.file = &checkpoint_.files().Get(slice.file);
    first.offset = slice.offset;
    return first;
  }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const RowRange range_;
  const std::span<const int64_t> shape_;
  const uint64_t item_size_;
  RowLayout result_;
  std::vector<LocatedSlice> slices_;           // by index of the overlap
  std::map<uint32_t, const uint8_t*> mapped_;  // by file; null if the file is not mapped
  uint64_t num_segments_ = 0;
};

}  // namespace

RowLayout LayOutRows(const Checkpoint& checkpoint, const Tensor& tensor, RowRange range) {
  return RowLayoutBuilder(checkpoint, tensor, range).Build();
}

}  // namespace tensorbundle
