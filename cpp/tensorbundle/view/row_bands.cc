// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/row_bands.h"

#include <algorithm>
#include <map>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/quoted.h"
#include "tensorbundle/view/read_box.h"
#include "tensorbundle/view/runs.h"
#include "tensorbundle/view/tiling.h"

namespace tensorbundle {
namespace {

// A table of segments larger than this would rival the data. Real tilings need one segment per
// piece.
constexpr uint64_t kMaxSegments = uint64_t{1} << 22;

// What the first row of a piece is made of, as segments relative to the piece's first byte.
std::vector<RowSegment> SegmentsOfRow(const PieceOverlap& overlap, std::span<const int64_t> shape,
                                      uint64_t item_size) {
  Box row = overlap.piece_box;
  row[0].length = 1;
  Box destination = WholeBox(shape);
  destination[0] = row[0];
  const RunLayout layout(overlap.piece_box, destination, row, item_size);
  uint64_t stride = item_size;
  for (size_t axis = 1; axis < row.size(); ++axis) {
    stride *= static_cast<uint64_t>(row[axis].length);
  }
  std::vector<RowSegment> segments;
  layout.ForEach(0, layout.count(), [&](const RunLayout::Run& run) {
    segments.push_back({nullptr, nullptr, run.source, stride, run.destination, layout.run_size()});
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

  RowBands Build() {
    result_.row_size = item_size_;
    for (size_t axis = 1; axis < shape_.size(); ++axis) {
      result_.row_size *= static_cast<uint64_t>(shape_[axis]);
    }
    if (tensor_.num_elements == 0) return std::move(result_);
    std::vector<PieceOverlap> overlaps = CoverBox(checkpoint_.catalog(), tensor_, WholeBox(shape_));
    AddEmptyBands(overlaps);
    for (const PieceOverlap& overlap : overlaps) AddPiece(overlap);
    return std::move(result_);
  }

 private:
  // A band begins wherever any piece does, and ends where the next begins.
  void AddEmptyBands(const std::vector<PieceOverlap>& overlaps) {
    std::vector<int64_t> begins;
    for (const PieceOverlap& overlap : overlaps) begins.push_back(overlap.piece_box[0].start);
    std::sort(begins.begin(), begins.end());
    begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
    for (size_t i = 0; i < begins.size(); ++i) {
      const int64_t end = i + 1 < begins.size() ? begins[i + 1] : shape_[0];
      result_.bands.push_back({begins[i], end, {}});
    }
  }

  void AddPiece(const PieceOverlap& overlap) {
    checkpoint_.CheckPiece(tensor_, *overlap.piece);
    const RowSegment base = Locate(*overlap.piece);
    const std::vector<RowSegment> of_row = SegmentsOfRow(overlap, shape_, item_size_);
    const Extent& rows = overlap.piece_box[0];
    auto band = std::lower_bound(
        result_.bands.begin(), result_.bands.end(), rows.start,
        [](const RowBand& candidate, int64_t row) { return candidate.begin < row; });
    for (; band != result_.bands.end() && band->begin < rows.end(); ++band) {
      num_segments_ += of_row.size();
      if (num_segments_ > kMaxSegments) {
        throw UnsupportedError("tensor " + Quoted(tensor_.name) +
                               " is stored in slices that cut its rows into more than " +
                               std::to_string(kMaxSegments) + " parts; read it in boxes instead");
      }
      for (RowSegment segment : of_row) {
        const uint64_t skip =
            segment.offset + static_cast<uint64_t>(band->begin - rows.start) * segment.stride;
        segment.memory = base.memory == nullptr ? nullptr : base.memory + skip;
        segment.file = base.file;
        segment.offset = base.offset + skip;
        band->segments.push_back(segment);
      }
    }
  }

  // The piece's first byte: in memory if it can be had there, else in its file.
  RowSegment Locate(const Piece& piece) {
    RowSegment place;
    if (piece.encoding == Encoding::kRecord) {
      result_.decoded.push_back(std::make_unique<std::vector<uint8_t>>(
          checkpoint_.records()->DecodeDense(tensor_, piece)));
      place.memory = result_.decoded.back()->data();
      return place;
    }
    const auto [known, is_new] = mapped_.try_emplace(piece.file, nullptr);
    if (is_new) {
      std::shared_ptr<const Mapping> mapping = checkpoint_.files().Map(piece.file);
      if (mapping != nullptr) {
        known->second = mapping->bytes().data();
        result_.mappings.push_back(std::move(mapping));
        result_.mapped_files.push_back(&checkpoint_.files().Get(piece.file));
      }
    }
    place.memory = known->second == nullptr ? nullptr : known->second + piece.offset;
    place.file = &checkpoint_.files().Get(piece.file);
    place.offset = piece.offset;
    return place;
  }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const std::span<const int64_t> shape_;
  const uint64_t item_size_;
  RowBands result_;
  std::map<uint32_t, const uint8_t*> mapped_;  // by file; null where nothing is mapped
  uint64_t num_segments_ = 0;
};

}  // namespace

bool RowBands::whole_rows() const {
  return std::all_of(bands.begin(), bands.end(),
                     [](const RowBand& band) { return band.segments.size() == 1; });
}

RowBands LayOutRows(const Checkpoint& checkpoint, const Tensor& tensor) {
  const DataTypeInfo& info = RequireKnownType(tensor);
  if (info.item_size == 0) {
    throw UnsupportedError("tensor " + Quoted(tensor.name) + " of type " + info.name +
                           " has no fixed element size");
  }
  return BandBuilder(checkpoint, tensor).Build();
}

}  // namespace tensorbundle
