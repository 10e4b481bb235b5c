// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/row_layout.h"

#include <algorithm>
#include <map>

#include "tensorbundle/base/error.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

// A table of segments larger than this would rival the data. Real tilings need one segment per
// slice.
constexpr uint64_t kMaxSegments = uint64_t{1} << 22;

// What the first row of a slice is made of, as segments relative to the slice's first byte.
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
  layout.ForEach(0, layout.count(), [&](const CopyLayout::Run& run) {
    segments.push_back({nullptr, nullptr, run.source, stride, run.destination, layout.span_size()});
  });
  return segments;
}

class BandBuilder {
 public:
  BandBuilder(const Checkpoint& checkpoint, const Tensor& tensor)
      : checkpoint_(checkpoint),
        tensor_(tensor),
        shape_(checkpoint.catalog().Shape(tensor)),
        item_size_(RequireKnownType(tensor).item_size) {}

  RowLayout Build() {
    result_.row_size = item_size_;
    for (size_t axis = 1; axis < shape_.size(); ++axis) {
      result_.row_size *= static_cast<uint64_t>(shape_[axis]);
    }
    const RowCover cover = CoverRows(checkpoint_.catalog(), tensor_);
    places_.resize(cover.overlaps.size());
    for (const RowGroupCover& rows : cover.bands) {
      RowGroup band{rows.begin, rows.end, {}, nullptr};
      try {
        if (!rows.fault.empty()) throw CorruptionError(rows.fault);
        for (const size_t i : rows.overlaps) AddSlice(cover.overlaps[i], &places_[i], &band);
      } catch (const Error&) {
        band.segments.clear();
        band.fault = std::current_exception();
        result_.has_faults = true;
      }
      result_.bands.push_back(std::move(band));
    }
    return std::move(result_);
  }

 private:
  // What is known of a slice, found when its first band is laid out.
  struct Place {
    std::vector<RowSegment> of_row;  // of the slice's first row
    RowSegment base;
    std::exception_ptr fault;
    bool is_known = false;
  };

  // Adds the segments that a slice gives to the rows of a band. Throws what is wrong with the
  // slice.
  void AddSlice(const SliceOverlap& overlap, Place* place, RowGroup* band) {
    if (!place->is_known) *place = OffsetOf(overlap);
    if (place->fault) std::rethrow_exception(place->fault);
    num_segments_ += place->of_row.size();
    if (num_segments_ > kMaxSegments) {
      throw UnsupportedError("tensor " + EscapeBytes(tensor_.name) +
                             " is stored in slices that cut its rows into more than " +
                             std::to_string(kMaxSegments) + " parts; read it in boxes instead");
    }
    const int64_t first = overlap.slice_box[0].start;
    for (RowSegment segment : place->of_row) {
      const uint64_t skip =
          segment.offset + static_cast<uint64_t>(band->begin - first) * segment.stride;
      segment.memory = place->base.memory == nullptr ? nullptr : place->base.memory + skip;
      segment.file = place->base.file;
      segment.offset = place->base.offset + skip;
      band->segments.push_back(segment);
    }
  }

  Place OffsetOf(const SliceOverlap& overlap) {
    Place place;
    place.is_known = true;
    try {
      RequireReadable(checkpoint_, tensor_, *overlap.slice);
      place.base = Locate(*overlap.slice);
      place.of_row = SegmentsOfRow(overlap, shape_, item_size_);
    } catch (const Error&) {
      place.fault = std::current_exception();
    }
    return place;
  }

  // The slice's first byte: in memory if it can be had there, else in its file.
  RowSegment Locate(const StoredSlice& slice) {
    RowSegment place;
    if (slice.encoding == Encoding::kRecord) {
      result_.decoded.push_back(std::make_unique<std::vector<uint8_t>>(
          checkpoint_.records()->DecodeDense(tensor_, slice)));
      place.memory = result_.decoded.back()->data();
      return place;
    }
    const auto [known, is_new] = mapped_.try_emplace(slice.file, nullptr);
    if (is_new) {
      std::shared_ptr<const Mapping> mapping = checkpoint_.files().MapForReading(slice.file);
      if (mapping != nullptr) {
        known->second = mapping->bytes().data();
        result_.mappings.push_back(std::move(mapping));
        result_.mapped_files.push_back(&checkpoint_.files().Get(slice.file));
      }
    }
    place.memory = known->second == nullptr ? nullptr : known->second + slice.offset;
    place.file = &checkpoint_.files().Get(slice.file);
    place.offset = slice.offset;
    return place;
  }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const std::span<const int64_t> shape_;
  const uint64_t item_size_;
  RowLayout result_;
  std::vector<Place> places_;                  // by number of the overlap
  std::map<uint32_t, const uint8_t*> mapped_;  // by file; null where nothing is mapped
  uint64_t num_segments_ = 0;
};

}  // namespace

const RowGroup& RowLayout::At(int64_t row) const {
  const auto next =
      std::upper_bound(bands.begin(), bands.end(), row,
                       [](int64_t wanted, const RowGroup& band) { return wanted < band.begin; });
  return *(next - 1);
}

RowLayout LayOutRows(const Checkpoint& checkpoint, const Tensor& tensor) {
  const DataTypeInfo& info = RequireKnownType(tensor);
  if (info.item_size == 0) {
    throw UnsupportedError("tensor " + EscapeBytes(tensor.name) + " of type " + info.name +
                           " has no fixed element size");
  }
  return BandBuilder(checkpoint, tensor).Build();
}

}  // namespace tensorbundle
