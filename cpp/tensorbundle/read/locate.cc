// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/locate.h"

#include <unistd.h>
#include <algorithm>
#include <exception>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/page_cache.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/row_stream.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

// Returns why no element of the tensor can be viewed, or kNone.
NoViewReason ReasonOfType(const Catalog& catalog, const Tensor& tensor) {
  const DataTypeInfo& info = RequireKnownType(tensor);
  if (info.item_size == 0) return NoViewReason::kVariableSize;
  if (catalog.big_endian && info.swap_size > 1) return NoViewReason::kBigEndian;
  return NoViewReason::kNone;
}

// Joins the ranges of the overlaps, if each is one span and they are adjacent both in the box and
// in one file.
BoxLocation JoinOverlaps(const Tensor& tensor, const Box& box,
                         std::span<const SliceOverlap> overlaps) {
  const uint64_t item_size = RequireKnownType(tensor).item_size;
  std::vector<std::pair<uint64_t, FileRange>> parts;  // by offset in the box
  parts.reserve(overlaps.size());
  for (const SliceOverlap& overlap : overlaps) {
    const StoredSlice& slice = *overlap.slice;
    if (slice.encoding != Encoding::kDense) return {{}, NoViewReason::kEncoded};
    const CopyLayout layout(overlap.slice_box, box, overlap.intersection, item_size);
    if (layout.count() != 1) return {{}, NoViewReason::kStrided};
    parts.push_back({layout.first().destination,
                     {slice.file, slice.offset + layout.first().source, layout.span_size()}});
  }
  if (parts.empty()) return {{}, NoViewReason::kScattered};
  std::sort(parts.begin(), parts.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  FileRange whole = parts[0].second;
  whole.size = 0;
  for (const auto& [destination, part] : parts) {
    if (destination != whole.size || part.file != whole.file ||
        part.offset != whole.offset + whole.size) {
      return {{}, NoViewReason::kScattered};
    }
    whole.size += part.size;
  }
  if (whole.size != Volume(box) * item_size) return {{}, NoViewReason::kScattered};
  return {whole};
}

// Locates all of a tensor and checks that its bytes may be read.
BoxLocation LocateTensor(const Checkpoint& checkpoint, const Tensor& tensor) {
  const Catalog& catalog = checkpoint.catalog();
  const NoViewReason reason = ReasonOfType(catalog, tensor);
  if (reason != NoViewReason::kNone) return {{}, reason};
  const std::span<const StoredSlice> slices = catalog.Slices(tensor);
  BoxLocation location;
  if (slices.size() == 1 && slices[0].first_extent == StoredSlice::kWholeTensor) {
    location.range = {slices[0].file, slices[0].offset, slices[0].size};
    if (slices[0].encoding != Encoding::kDense) location.reason = NoViewReason::kEncoded;
  } else {
    location = FindFileRange(catalog, tensor, WholeBox(catalog.Shape(tensor)));
    // One slice is not scattered; several slices are, whatever else they are.
    if (!location) {
      location.reason = slices.size() == 1 ? NoViewReason::kEncoded : NoViewReason::kScattered;
    }
  }
  if (!location) return location;
  for (const StoredSlice& slice : slices) RequireReadable(checkpoint, tensor, slice);
  return location;
}

NoViewReason WhyNotMapped(const Checkpoint& checkpoint) {
  return checkpoint.files().has_opener() ? NoViewReason::kRemote : NoViewReason::kNotMapped;
}

TensorView ViewRange(const Checkpoint& checkpoint, const FileRange& range) {
  std::shared_ptr<const Mapping> mapping = checkpoint.files().MapForViews(range.file);
  if (mapping == nullptr) return {{}, {}, WhyNotMapped(checkpoint)};
  const ByteSpan bytes = mapping->bytes().subspan(range.offset, range.size);
  return {std::move(mapping), bytes};
}

TensorView CopyOnWriteRange(const Checkpoint& checkpoint, const FileRange& range) {
  const IoMode mode = checkpoint.mode();
  if (mode == IoMode::kPread || mode == IoMode::kDirect) {
    return {{}, {}, WhyNotMapped(checkpoint)};
  }
  const File& file = checkpoint.files().Get(range.file);
  file.CheckNotShrunk();
  std::shared_ptr<const Mapping> mapping = Mapping::CopyOnWrite(file, range.offset, range.size);
  const ByteSpan bytes = mapping->bytes();
  return {std::move(mapping), bytes};
}

// Locates one stored slice and checks that its bytes may be read.
BoxLocation LocateSlice(const Checkpoint& checkpoint, const Tensor& tensor,
                        const StoredSlice& slice) {
  const NoViewReason reason = ReasonOfType(checkpoint.catalog(), tensor);
  if (reason != NoViewReason::kNone) return {{}, reason};
  if (slice.encoding != Encoding::kDense) return {{}, NoViewReason::kEncoded};
  RequireReadable(checkpoint, tensor, slice);
  return {{slice.file, slice.offset, slice.size}};
}

}  // namespace

const char* ToString(NoViewReason reason) {
  switch (reason) {
    case NoViewReason::kNone:
      return "";
    case NoViewReason::kVariableSize:
      return "its elements have no fixed size";
    case NoViewReason::kBigEndian:
      return "it is stored big-endian";
    case NoViewReason::kEncoded:
      return "its stored form must be decoded";
    case NoViewReason::kStrided:
      return "its rows are parts of longer stored rows";
    case NoViewReason::kScattered:
      return "its stored slices are not adjacent";
    case NoViewReason::kNotMapped:
      return "the checkpoint was opened without memory mapping";
    case NoViewReason::kRemote:
      return "it is in a remote store";
  }
  return "";
}

BoxLocation FindFileRange(const Catalog& catalog, const Tensor& tensor, const Box& box) {
  const NoViewReason reason = ReasonOfType(catalog, tensor);
  if (reason != NoViewReason::kNone) return {{}, reason};
  return JoinOverlaps(tensor, box, IntersectSlices(catalog, tensor, box));
}

BoxLocation LocateBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box) {
  const NoViewReason reason = ReasonOfType(checkpoint.catalog(), tensor);
  if (reason != NoViewReason::kNone) return {{}, reason};
  const std::vector<SliceOverlap> overlaps = FindOverlaps(checkpoint.catalog(), tensor, box);
  for (const SliceOverlap& overlap : overlaps) {
    RequireReadable(checkpoint, tensor, *overlap.slice);
  }
  return JoinOverlaps(tensor, box, overlaps);
}

TensorView ViewTensor(const Checkpoint& checkpoint, const Tensor& tensor) {
  const BoxLocation location = LocateTensor(checkpoint, tensor);
  if (!location) return {{}, {}, location.reason};
  return ViewRange(checkpoint, location.range);
}

TensorView ViewSlice(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice) {
  const BoxLocation location = LocateSlice(checkpoint, tensor, slice);
  if (!location) return {{}, {}, location.reason};
  return ViewRange(checkpoint, location.range);
}

TensorView CopyOnWriteTensor(const Checkpoint& checkpoint, const Tensor& tensor) {
  const BoxLocation location = LocateTensor(checkpoint, tensor);
  if (location.reason == NoViewReason::kScattered || location.reason == NoViewReason::kEncoded) {
    FindOverlaps(checkpoint.catalog(), tensor, WholeBox(checkpoint.catalog().Shape(tensor)));
  }
  if (!location) return {{}, {}, location.reason};
  return CopyOnWriteRange(checkpoint, location.range);
}

TensorView CopyOnWriteSlice(const Checkpoint& checkpoint, const Tensor& tensor,
                            const StoredSlice& slice) {
  const BoxLocation location = LocateSlice(checkpoint, tensor, slice);
  if (!location) return {{}, {}, location.reason};
  return CopyOnWriteRange(checkpoint, location.range);
}

namespace {

// Ranges to look up in the page cache: each look-up is a system call.
constexpr size_t kMaxProbes = 4096;

bool IsBefore(const FileRange& a, const FileRange& b) {
  return std::tie(a.file, a.offset) < std::tie(b.file, b.offset);
}

// Appends a range, or merges it with the last one if they touch.
// Requires: ranges are appended in ascending order.
void Append(const FileRange& range, std::vector<FileRange>* ranges) {
  if (range.size == 0) return;
  if (!ranges->empty()) {
    FileRange& last = ranges->back();
    if (last.file == range.file && range.offset <= last.offset + last.size) {
      last.size = std::max(last.size, range.offset + range.size - last.offset);
      return;
    }
  }
  ranges->push_back(range);
}

std::vector<FileRange> Merged(std::vector<FileRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), IsBefore);
  std::vector<FileRange> merged;
  for (const FileRange& range : ranges) Append(range, &merged);
  return merged;
}

// Adds the ranges of one slice that a box takes. Spans are in ascending order.
void AddSpans(const SliceOverlap& overlap, const Box& box, uint64_t item_size,
              std::vector<FileRange>* ranges) {
  const StoredSlice& slice = *overlap.slice;
  if (slice.encoding != Encoding::kDense) {
    ranges->push_back({slice.file, slice.offset, slice.size});
    return;
  }
  const CopyLayout layout(overlap.slice_box, box, overlap.intersection, item_size);
  std::vector<FileRange> own;
  layout.ForEach(0, layout.count(), [&](const CopyLayout::Span& span) {
    Append({slice.file, slice.offset + span.source, layout.span_size()}, &own);
  });
  ranges->insert(ranges->end(), own.begin(), own.end());
}

// Returns the rows as ascending extents.
std::vector<Extent> ExtentsOf(std::span<const int64_t> rows) {
  std::vector<int64_t> sorted(rows.begin(), rows.end());
  if (!std::is_sorted(sorted.begin(), sorted.end())) std::sort(sorted.begin(), sorted.end());
  std::vector<Extent> extents;
  for (const int64_t row : sorted) {
    if (!extents.empty() && row <= extents.back().end()) {
      extents.back().length = std::max(extents.back().length, row + 1 - extents.back().start);
    } else {
      extents.push_back({row, 1});
    }
  }
  return extents;
}

// Adds the ranges of one slice that rows take. The rows of a slice are adjacent in it.
void AddRows(const SliceOverlap& overlap, std::span<const Extent> rows,
             std::vector<FileRange>* ranges) {
  const StoredSlice& slice = *overlap.slice;
  const Extent stored = overlap.slice_box[0];
  const uint64_t row_size = slice.size / static_cast<uint64_t>(stored.length);
  auto extent = std::lower_bound(rows.begin(), rows.end(), stored.start,
                                 [](const Extent& e, int64_t row) { return e.end() <= row; });
  std::vector<FileRange> own;
  for (; extent != rows.end() && extent->start < stored.end(); ++extent) {
    if (slice.encoding != Encoding::kDense) {
      ranges->push_back({slice.file, slice.offset, slice.size});
      return;
    }
    const int64_t first = std::max(extent->start, stored.start);
    const int64_t end = std::min(extent->end(), stored.end());
    Append({slice.file, slice.offset + static_cast<uint64_t>(first - stored.start) * row_size,
            static_cast<uint64_t>(end - first) * row_size},
           &own);
  }
  ranges->insert(ranges->end(), own.begin(), own.end());
}

// Throws CorruptionError if some of the rows are stored nowhere or twice.
void RequireRows(const RowCover& cover, std::span<const Extent> rows) {
  if (!cover.has_errors) return;
  for (const Extent& extent : rows) {
    for (int64_t row = extent.start; row < extent.end();) {
      const CoveredRows& group = cover.At(row);
      if (group.error) std::rethrow_exception(group.error);
      row = group.end;
    }
  }
}

void CheckSlices(const Checkpoint& checkpoint, const Tensor& tensor,
                 std::span<const SliceOverlap> overlaps) {
  for (const SliceOverlap& overlap : overlaps) {
    checkpoint.CheckSlice(tensor, *overlap.slice, Compared::kNo);
  }
}

// Whether a slice intersects the ranges, and whether it is inside them.
struct Presence {
  bool any;
  bool all;
};

Presence FindIn(const StoredSlice& slice, std::span<const FileRange> ranges) {
  auto range = std::lower_bound(
      ranges.begin(), ranges.end(), slice, [](const FileRange& r, const StoredSlice& s) {
        return std::make_tuple(r.file, r.offset + r.size) <= std::make_tuple(s.file, s.offset);
      });
  if (range == ranges.end() || range->file != slice.file ||
      range->offset >= slice.offset + slice.size) {
    return {false, false};
  }
  return {true, range->offset <= slice.offset &&
                    range->offset + range->size >= slice.offset + slice.size};
}

void InspectPages(const Checkpoint& checkpoint, std::span<const FileRange> ranges,
                  bool allow_direct, RangeStats* stats) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<FileRange> pages;
  for (const FileRange& range : ranges) {
    const uint64_t start = range.offset / page * page;
    const uint64_t end = (range.offset + range.size + page - 1) / page * page;
    Append({range.file, start, end - start}, &pages);
  }
  const size_t step = pages.size() / kMaxProbes + 1;
  for (size_t i = 0; i < pages.size(); ++i) {
    const FileRange& range = pages[i];
    stats->num_touched += range.size;
    if (i % step != 0) continue;
    const File& file = checkpoint.files().Get(range.file);
    const std::optional<uint64_t> resident =
        ResidentBytes(file, range.offset, std::min(range.size, file.size() - range.offset));
    if (resident) {
      stats->num_probed += range.size;
      stats->num_resident += *resident;
    }
    stats->prefers_direct |=
        PageCachePolicy(file, allow_direct).PrefersDirect(range.offset, range.size);
  }
}

}  // namespace

std::vector<FileRange> RangesOfBox(const Checkpoint& checkpoint, const Tensor& tensor,
                                   const Box& box) {
  const DataTypeInfo& info = RequireKnownType(tensor);
  if (Volume(box) == 0) return {};
  const std::vector<SliceOverlap> overlaps = FindOverlaps(checkpoint.catalog(), tensor, box);
  CheckSlices(checkpoint, tensor, overlaps);
  std::vector<FileRange> ranges;
  for (const SliceOverlap& overlap : overlaps) AddSpans(overlap, box, info.item_size, &ranges);
  return Merged(std::move(ranges));
}

std::vector<FileRange> RangesOfRows(const Checkpoint& checkpoint, const Tensor& tensor,
                                    std::span<const int64_t> rows) {
  RequireKnownType(tensor);
  if (rows.empty() || tensor.num_elements == 0) return {};
  const std::vector<Extent> extents = ExtentsOf(rows);
  const RowCover cover = CoverRows(checkpoint.catalog(), tensor);
  RequireRows(cover, extents);
  std::vector<FileRange> ranges;
  for (const SliceOverlap& overlap : cover.overlaps) {
    const size_t before = ranges.size();
    AddRows(overlap, extents, &ranges);
    if (ranges.size() != before) checkpoint.CheckSlice(tensor, *overlap.slice, Compared::kNo);
  }
  return Merged(std::move(ranges));
}

RangeStats InspectRanges(const Checkpoint& checkpoint, const Tensor& tensor,
                         std::span<const FileRange> ranges) {
  RangeStats stats;
  for (const FileRange& range : ranges) stats.num_bytes += range.size;
  for (const StoredSlice& slice : checkpoint.catalog().Slices(tensor)) {
    const Presence presence = FindIn(slice, ranges);
    stats.num_slices += presence.any ? 1 : 0;
    stats.num_whole += presence.all ? 1 : 0;
    stats.num_verified += presence.all && checkpoint.IsVerified(slice) ? 1 : 0;
  }
  InspectPages(checkpoint, ranges, AllowsDirect(checkpoint, stats.num_bytes), &stats);
  return stats;
}

}  // namespace tensorbundle
