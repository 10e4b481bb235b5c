// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/slice_cover.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <span>
#include <string>

#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

// Looks at slices before we give up. A grid takes a few per slice and axis; what no straight cut
// divides, or what cuts divide one slice at a time, takes the square of its slices. Every
// partitioner that TensorFlow has makes grids.
constexpr uint64_t kMaxLooks = 100'000'000;
constexpr uint64_t kMaxLooksPerSlice = 1'000;  // a grid of many axes

// Parts of bands in a row cover. Real tilings need one per slice; a table that is larger than this
// would rival the data.
constexpr uint64_t kMaxBandParts = uint64_t{1} << 22;

using Slices = std::span<SliceOverlap>;

std::string InTensor(const Tensor& tensor) { return "tensor " + EscapeBytes(tensor.name) + ": "; }

// Sorts the slices along an axis and returns where straight cuts across it separate them: the first
// index of every group, and the end.
std::vector<size_t> CutAcross(Slices slices, size_t axis) {
  std::sort(slices.begin(), slices.end(), [axis](const SliceOverlap& a, const SliceOverlap& b) {
    return a.slice_box[axis].start < b.slice_box[axis].start;
  });
  std::vector<size_t> groups = {0};
  int64_t end = slices[0].slice_box[axis].end();
  for (size_t i = 1; i < slices.size(); ++i) {
    if (slices[i].slice_box[axis].start >= end) groups.push_back(i);
    end = std::max(end, slices[i].slice_box[axis].end());
  }
  groups.push_back(slices.size());
  return groups;
}

bool Overlap(const Box& a, const Box& b) {
  for (size_t axis = 0; axis < a.size(); ++axis) {
    if (a[axis].start >= b[axis].end() || b[axis].start >= a[axis].end()) return false;
  }
  return true;
}

// Slices that no straight cut separates, compared in pairs.
const SliceOverlap* FindOverlapInPairs(Slices slices) {
  for (size_t i = 0; i < slices.size(); ++i) {
    for (size_t j = i + 1; j < slices.size(); ++j) {
      if (Overlap(slices[i].slice_box, slices[j].slice_box)) return &slices[j];
    }
  }
  return nullptr;
}

// A slice that overlaps another, or null. Cuts the set in two wherever a straight cut goes through:
// near-linear for the tilings that exist, where comparing all pairs is not.
const SliceOverlap* FindOverlap(const Tensor& tensor, Slices slices, uint64_t* looks_left) {
  std::vector<Slices> open = {slices};
  const auto look = [&](uint64_t times) {
    if (times > *looks_left) {
      throw UnsupportedError(InTensor(tensor) + std::to_string(slices.size()) +
                             " slices lie in a pattern that straight cuts do not divide");
    }
    *looks_left -= times;
  };
  while (!open.empty()) {
    const Slices group = open.back();
    open.pop_back();
    if (group.size() < 2) continue;
    std::vector<size_t> cuts;
    for (size_t axis = 0; axis < tensor.rank && cuts.size() <= 2; ++axis) {
      look(group.size() * static_cast<uint64_t>(std::bit_width(group.size())));  // sorting
      cuts = CutAcross(group, axis);
    }
    if (cuts.size() > 2) {
      for (size_t i = 0; i + 1 < cuts.size(); ++i) {
        open.push_back(group.subspan(cuts[i], cuts[i + 1] - cuts[i]));
      }
      continue;
    }
    look(group.size() * (group.size() / 2));
    if (const SliceOverlap* found = FindOverlapInPairs(group)) return found;
  }
  return nullptr;
}

// Whether a box is one run of its row-major tensor, and where that starts.
std::optional<uint64_t> RunStart(const Box& box, std::span<const int64_t> shape) {
  uint64_t start = 0;
  bool narrowed = false;  // an outer axis has more than one row: every inner one must then be whole
  for (size_t axis = 0; axis < box.size(); ++axis) {
    if (narrowed && box[axis].length != shape[axis]) return std::nullopt;
    narrowed |= box[axis].length > 1;
    start = start * static_cast<uint64_t>(shape[axis]) + static_cast<uint64_t>(box[axis].start);
  }
  return start;
}

uint64_t LooksFor(size_t num_slices) { return kMaxLooks + kMaxLooksPerSlice * num_slices; }

// Throws CorruptionError unless every element of the box is in exactly one of the slices. Sorts
// them.
void RequireCover(const Tensor& tensor, Slices overlaps, const Box& box, uint64_t* looks_left) {
  uint64_t covered = 0;
  for (const SliceOverlap& overlap : overlaps) covered += Volume(overlap.common);
  if (const SliceOverlap* found = FindOverlap(tensor, overlaps, looks_left)) {
    throw CorruptionError(InTensor(tensor) + "stored slice " + ToString(found->slice_box) +
                          " overlaps another one");
  }
  if (covered != Volume(box)) {
    throw CorruptionError(InTensor(tensor) + "stored in part: the stored slices hold " +
                          std::to_string(covered) + " of the " + std::to_string(Volume(box)) +
                          " elements of " + ToString(box));
  }
}

// The parts of the slices that lie in a box.
std::vector<SliceOverlap> OverlapsWith(const Catalog& catalog, const Tensor& tensor,
                                       const Box& box) {
  std::vector<SliceOverlap> overlaps;
  for (const StoredSlice& slice : catalog.Slices(tensor)) {
    Box slice_box = catalog.BoxOf(tensor, slice);
    std::optional<Box> common = Intersect(slice_box, box);
    if (!common) continue;
    overlaps.push_back({&slice, std::move(slice_box), std::move(*common)});
  }
  return overlaps;
}

// Bands that end wherever a slice begins or ends, with the slices that each takes its rows from.
std::vector<RowGroupCover> CutIntoBands(std::span<const int64_t> shape, Slices overlaps) {
  std::vector<int64_t> cuts{0, shape[0]};
  for (const SliceOverlap& overlap : overlaps) {
    cuts.push_back(overlap.slice_box[0].start);
    cuts.push_back(overlap.slice_box[0].end());
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<RowGroupCover> bands;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) bands.push_back({cuts[i], cuts[i + 1], {}, {}});
  return bands;
}

}  // namespace

std::vector<SliceOverlap> FindOverlaps(const Catalog& catalog, const Tensor& tensor,
                                       const Box& box) {
  std::vector<SliceOverlap> overlaps = OverlapsWith(catalog, tensor, box);
  uint64_t looks_left = LooksFor(overlaps.size());
  RequireCover(tensor, overlaps, box, &looks_left);
  return overlaps;
}

RowCover CoverRows(const Catalog& catalog, const Tensor& tensor) {
  const std::span<const int64_t> shape = catalog.Shape(tensor);
  RowCover cover;
  if (tensor.num_elements == 0) return cover;
  const Box whole = WholeBox(shape);
  cover.overlaps = OverlapsWith(catalog, tensor, whole);
  uint64_t looks_left = LooksFor(cover.overlaps.size());
  try {
    RequireCover(tensor, cover.overlaps, whole, &looks_left);
  } catch (const CorruptionError&) {
    cover.has_faults = true;
  }
  std::sort(cover.overlaps.begin(), cover.overlaps.end(),
            [](const SliceOverlap& a, const SliceOverlap& b) {
              return a.slice_box[0].start < b.slice_box[0].start;
            });
  cover.bands = CutIntoBands(shape, cover.overlaps);
  uint64_t num_parts = 0;
  for (size_t i = 0; i < cover.overlaps.size(); ++i) {
    const Extent rows = cover.overlaps[i].slice_box[0];
    auto band = std::lower_bound(cover.bands.begin(), cover.bands.end(), rows.start,
                                 [](const RowGroupCover& b, int64_t row) { return b.begin < row; });
    for (; band != cover.bands.end() && band->begin < rows.end(); ++band) {
      if (++num_parts > kMaxBandParts) {
        throw UnsupportedError(InTensor(tensor) + "its slices cut it into more than " +
                               std::to_string(kMaxBandParts) +
                               " parts of rows; read it in boxes instead");
      }
      band->overlaps.push_back(i);
    }
  }
  if (!cover.has_faults) return cover;
  for (RowGroupCover& band : cover.bands) {
    Box box = whole;
    box[0] = {band.begin, band.end - band.begin};
    std::vector<SliceOverlap> own;
    for (const size_t i : band.overlaps) {
      own.push_back(cover.overlaps[i]);
      own.back().common = *Intersect(own.back().slice_box, box);
    }
    try {
      RequireCover(tensor, own, box, &looks_left);
    } catch (const CorruptionError& error) {
      band.fault = error.what();
    }
  }
  return cover;
}

const RowGroupCover& RowCover::At(int64_t row) const {
  const auto next = std::upper_bound(
      bands.begin(), bands.end(), row,
      [](int64_t wanted, const RowGroupCover& band) { return wanted < band.begin; });
  return *(next - 1);
}

std::vector<const StoredSlice*> ContiguousPieces(const Catalog& catalog, const Tensor& tensor) {
  struct Run {
    uint64_t start;
    const StoredSlice* slice;
    uint64_t num_elements;
  };
  std::vector<Run> runs;
  for (const StoredSlice& slice : catalog.Slices(tensor)) {
    if (slice.encoding != Encoding::kDense) return {};
    const Box box = catalog.BoxOf(tensor, slice);
    const std::optional<uint64_t> start = RunStart(box, catalog.Shape(tensor));
    if (!start) return {};
    runs.push_back({*start, &slice, Volume(box)});
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.start < b.start; });
  uint64_t element = 0;
  std::vector<const StoredSlice*> slices;
  for (const Run& run : runs) {
    const StoredSlice* before = slices.empty() ? run.slice : slices.back();
    const bool follows = slices.empty() || run.slice->offset == before->offset + before->size;
    if (run.start != element || run.slice->file != before->file || !follows) return {};
    element += run.num_elements;
    slices.push_back(run.slice);
  }
  if (element != tensor.num_elements) return {};
  return slices;
}

}  // namespace tensorbundle
