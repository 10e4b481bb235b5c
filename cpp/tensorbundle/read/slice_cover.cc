// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/slice_cover.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

// Comparisons of slices before a pattern is rejected. A grid takes a few per slice and axis. Slices
// that no straight cut divides, or that cuts divide one slice at a time, take the square of their
// number.
constexpr uint64_t kMaxComparisons = 100'000'000;
constexpr uint64_t kMaxComparisonsPerSlice = 1'000;  // enough for a grid of many axes

// Slices in all groups of a row cover together. Grids need one per slice. A larger table would take
// as much memory as the data.
constexpr uint64_t kMaxSlicesInGroups = uint64_t{1} << 22;

using Slices = std::span<SliceOverlap>;

std::string InTensor(const Tensor& tensor) { return "tensor " + EscapeBytes(tensor.name) + ": "; }

// Sorts the slices along an axis. Returns where straight cuts across the axis separate them: the
// index of the first slice of every set, and the number of slices.
std::vector<size_t> CutAcross(Slices slices, size_t axis) {
  std::sort(slices.begin(), slices.end(), [axis](const SliceOverlap& a, const SliceOverlap& b) {
    return a.slice_box[axis].start < b.slice_box[axis].start;
  });
  std::vector<size_t> starts = {0};
  int64_t end = slices[0].slice_box[axis].end();
  for (size_t i = 1; i < slices.size(); ++i) {
    if (slices[i].slice_box[axis].start >= end) starts.push_back(i);
    end = std::max(end, slices[i].slice_box[axis].end());
  }
  starts.push_back(slices.size());
  return starts;
}

bool Overlap(const Box& a, const Box& b) {
  for (size_t axis = 0; axis < a.size(); ++axis) {
    if (a[axis].start >= b[axis].end() || b[axis].start >= a[axis].end()) return false;
  }
  return true;
}

// Compares all pairs. Returns a slice that overlaps another, or null.
const SliceOverlap* FindOverlapInPairs(Slices slices) {
  for (size_t i = 0; i < slices.size(); ++i) {
    for (size_t j = i + 1; j < slices.size(); ++j) {
      if (Overlap(slices[i].slice_box, slices[j].slice_box)) return &slices[j];
    }
  }
  return nullptr;
}

// Returns a slice that overlaps another, or null. Takes near-linear time for grids.
const SliceOverlap* FindOverlap(const Tensor& tensor, Slices slices, uint64_t* comparisons_left) {
  if (slices.size() < 2) return nullptr;
  std::vector<Slices> open = {slices};
  const auto spend = [&](uint64_t comparisons) {
    if (comparisons > *comparisons_left) {
      throw UnsupportedError(InTensor(tensor) + std::to_string(slices.size()) +
                             " slices lie in a pattern that straight cuts do not divide");
    }
    *comparisons_left -= comparisons;
  };
  while (!open.empty()) {
    const Slices set = open.back();
    open.pop_back();
    if (set.size() < 2) continue;
    std::vector<size_t> starts;
    for (size_t axis = 0; axis < tensor.rank && starts.size() <= 2; ++axis) {
      spend(set.size() * static_cast<uint64_t>(std::bit_width(set.size())));  // sorting
      starts = CutAcross(set, axis);
    }
    if (starts.size() > 2) {
      for (size_t i = 0; i + 1 < starts.size(); ++i) {
        open.push_back(set.subspan(starts[i], starts[i + 1] - starts[i]));
      }
      continue;
    }
    spend(set.size() * (set.size() / 2));
    if (const SliceOverlap* found = FindOverlapInPairs(set)) return found;
  }
  return nullptr;
}

uint64_t MaxComparisons(size_t num_slices) {
  return kMaxComparisons + kMaxComparisonsPerSlice * num_slices;
}

// Throws CorruptionError unless every element of the box is in exactly one of the slices. Sorts
// the slices.
void RequireCover(const Tensor& tensor, Slices overlaps, const Box& box,
                  uint64_t* comparisons_left) {
  uint64_t covered = 0;
  for (const SliceOverlap& overlap : overlaps) covered += Volume(overlap.intersection);
  if (const SliceOverlap* found = FindOverlap(tensor, overlaps, comparisons_left)) {
    throw CorruptionError(InTensor(tensor) + "stored slice " + ToString(found->slice_box) +
                          " overlaps another one");
  }
  if (covered != Volume(box)) {
    throw UncoveredError(InTensor(tensor) + "stored in part: the stored slices hold " +
                         std::to_string(covered) + " of the " + std::to_string(Volume(box)) +
                         " elements of " + ToString(box));
  }
}

// Returns groups without slices that end wherever a slice begins or ends.
std::vector<CoveredRows> CutIntoGroups(std::span<const int64_t> shape, Slices overlaps) {
  std::vector<int64_t> cuts{0, shape[0]};
  for (const SliceOverlap& overlap : overlaps) {
    cuts.push_back(overlap.slice_box[0].start);
    cuts.push_back(overlap.slice_box[0].end());
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<CoveredRows> groups;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) groups.push_back({cuts[i], cuts[i + 1], {}, {}});
  return groups;
}

// Adds each slice to the groups of its rows.
void AddSlicesToGroups(const Tensor& tensor, RowCover* cover) {
  uint64_t num_slices = 0;
  for (size_t i = 0; i < cover->overlaps.size(); ++i) {
    const Extent rows = cover->overlaps[i].slice_box[0];
    auto group = std::lower_bound(cover->groups.begin(), cover->groups.end(), rows.start,
                                  [](const CoveredRows& g, int64_t row) { return g.begin < row; });
    for (; group != cover->groups.end() && group->begin < rows.end(); ++group) {
      if (++num_slices > kMaxSlicesInGroups) {
        throw UnsupportedError(InTensor(tensor) + "its slices cut it into more than " +
                               std::to_string(kMaxSlicesInGroups) +
                               " parts of rows; read it in boxes instead");
      }
      group->overlaps.push_back(i);
    }
  }
}

// Sets the error of each group whose rows are not covered exactly once.
void CheckGroups(const Tensor& tensor, const Box& whole, uint64_t* comparisons_left,
                 RowCover* cover) {
  for (CoveredRows& group : cover->groups) {
    Box box = whole;
    box[0] = {group.begin, group.end - group.begin};
    std::vector<SliceOverlap> own;
    for (const size_t i : group.overlaps) {
      own.push_back(cover->overlaps[i]);
      own.back().intersection = *Intersect(own.back().slice_box, box);
    }
    try {
      RequireCover(tensor, own, box, comparisons_left);
    } catch (const CorruptionError&) {
      group.error = std::current_exception();
    }
  }
}

}  // namespace

std::vector<SliceOverlap> IntersectSlices(const Catalog& catalog, const Tensor& tensor,
                                          const Box& box) {
  std::vector<SliceOverlap> overlaps;
  for (const StoredSlice& slice : catalog.Slices(tensor)) {
    Box slice_box = catalog.BoxOf(tensor, slice);
    std::optional<Box> intersection = Intersect(slice_box, box);
    if (!intersection) continue;
    overlaps.push_back({&slice, std::move(slice_box), std::move(*intersection)});
  }
  return overlaps;
}

std::vector<SliceOverlap> FindOverlaps(const Catalog& catalog, const Tensor& tensor,
                                       const Box& box) {
  std::vector<SliceOverlap> overlaps = IntersectSlices(catalog, tensor, box);
  uint64_t comparisons_left = MaxComparisons(overlaps.size());
  RequireCover(tensor, overlaps, box, &comparisons_left);
  return overlaps;
}

RowCover CoverRows(const Catalog& catalog, const Tensor& tensor) {
  RowCover cover;
  if (tensor.num_elements == 0) return cover;
  const Box whole = WholeBox(catalog.Shape(tensor));
  cover.overlaps = IntersectSlices(catalog, tensor, whole);
  uint64_t comparisons_left = MaxComparisons(cover.overlaps.size());
  try {
    RequireCover(tensor, cover.overlaps, whole, &comparisons_left);
  } catch (const CorruptionError&) {
    cover.has_errors = true;
  }
  std::sort(cover.overlaps.begin(), cover.overlaps.end(),
            [](const SliceOverlap& a, const SliceOverlap& b) {
              return a.slice_box[0].start < b.slice_box[0].start;
            });
  cover.groups = CutIntoGroups(catalog.Shape(tensor), cover.overlaps);
  AddSlicesToGroups(tensor, &cover);
  if (cover.has_errors) CheckGroups(tensor, whole, &comparisons_left, &cover);
  return cover;
}

const CoveredRows& RowCover::At(int64_t row) const {
  const auto next = std::upper_bound(
      groups.begin(), groups.end(), row,
      [](int64_t wanted, const CoveredRows& group) { return wanted < group.begin; });
  return *(next - 1);
}

}  // namespace tensorbundle
