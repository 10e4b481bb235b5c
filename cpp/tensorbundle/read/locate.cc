// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/locate.h"

#include <unistd.h>
#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
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

constexpr const char* kNeverMaps = "the checkpoint was opened without memory mapping";
constexpr const char* kScattered = "its stored slices do not lie one behind the other";
constexpr const char* kMustBeDecoded = "its stored form must be decoded";

// Why elements of this tensor can never be shown where they lie, or null.
const char* WhyNot(const Checkpoint& checkpoint, const Tensor& tensor) {
  const DataTypeInfo& info = RequireKnownType(tensor);
  if (info.item_size == 0) return "its elements have no fixed size";
  if (checkpoint.catalog().big_endian && info.swap_size > 1) return "it is stored big-endian";
  return nullptr;
}

struct StoredRange {
  uint32_t file = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  const char* why_not = nullptr;
};

StoredRange FindStoredRange(const Checkpoint& checkpoint, const Tensor& tensor) {
  StoredRange range;
  range.why_not = WhyNot(checkpoint, tensor);
  if (range.why_not != nullptr) return range;
  const std::vector<const StoredSlice*> slices = ContiguousPieces(checkpoint.catalog(), tensor);
  if (slices.empty()) {
    range.why_not = tensor.num_slices == 1 ? kMustBeDecoded : kScattered;
    return range;
  }
  for (const StoredSlice* slice : slices) {
    RequireReadable(checkpoint, tensor, *slice);
    range.size += slice->size;
  }
  range.file = slices[0]->file;
  range.offset = slices[0]->offset;
  return range;
}

TensorView ViewRange(const Checkpoint& checkpoint, uint32_t file, uint64_t offset, uint64_t size) {
  std::shared_ptr<const Mapping> mapping = checkpoint.files().MapForViews(file);
  if (mapping == nullptr) return {{}, {}, kNeverMaps};
  const ByteSpan bytes = mapping->bytes().subspan(offset, size);
  return {std::move(mapping), bytes};
}

}  // namespace

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

StoredRun LocateBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box) {
  if (const char* why_not = WhyNot(checkpoint, tensor)) return {.why_not = why_not};
  const uint64_t item_size = RequireKnownType(tensor).item_size;
  std::map<uint64_t, StoredRun> runs;  // by where they belong in the box
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), tensor, box)) {
    const StoredSlice& slice = *overlap.slice;
    RequireReadable(checkpoint, tensor, slice);
    if (slice.encoding != Encoding::kDense) return {.why_not = kMustBeDecoded};
    const CopyLayout layout(overlap.slice_box, box, overlap.intersection, item_size);
    if (layout.count() != 1) return {.why_not = "its rows are parts of longer stored rows"};
    runs[layout.first().destination] = {slice.file, slice.offset + layout.first().source,
                                        layout.span_size()};
  }
  StoredRun whole = runs.begin()->second;
  whole.size = 0;
  for (const auto& [destination, run] : runs) {
    if (run.file != whole.file || run.offset != whole.offset + whole.size) {
      return {.why_not = kScattered};
    }
    whole.size += run.size;
  }
  return whole;
}

TensorView ViewTensor(const Checkpoint& checkpoint, const Tensor& tensor) {
  const StoredRange range = FindStoredRange(checkpoint, tensor);
  if (range.why_not != nullptr) return {{}, {}, range.why_not};
  return ViewRange(checkpoint, range.file, range.offset, range.size);
}

TensorView ViewSlice(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice) {
  if (const char* why_not = WhyNot(checkpoint, tensor)) return {{}, {}, why_not};
  if (slice.encoding != Encoding::kDense) return {{}, {}, kMustBeDecoded};
  RequireReadable(checkpoint, tensor, slice);
  return ViewRange(checkpoint, slice.file, slice.offset, slice.size);
}

TensorView CopyOnWriteTensor(const Checkpoint& checkpoint, const Tensor& tensor) {
  const StoredRange range = FindStoredRange(checkpoint, tensor);
  if (range.why_not == kScattered || range.why_not == kMustBeDecoded) {
    FindOverlaps(checkpoint.catalog(), tensor, WholeBox(checkpoint.catalog().Shape(tensor)));
  }
  if (range.why_not != nullptr) return {{}, {}, range.why_not};
  const IoMode mode = checkpoint.mode();
  if (mode == IoMode::kPread || mode == IoMode::kDirect) return {{}, {}, kNeverMaps};
  const File& file = checkpoint.files().Get(range.file);
  file.CheckNotShrunk();
  std::shared_ptr<const Mapping> mapping = Mapping::CopyOnWrite(file, range.offset, range.size);
  const ByteSpan bytes = mapping->bytes();
  return {std::move(mapping), bytes};
}

namespace {

// Ranges that are looked for in the page cache: each costs a system call.
constexpr size_t kMaxProbes = 4096;

bool ByPlace(const FileRange& a, const FileRange& b) {
  return std::tie(a.file, a.offset) < std::tie(b.file, b.offset);
}

// Appends a range; to the last one when it goes on there. Ranges come in ascending order.
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
  std::sort(ranges.begin(), ranges.end(), ByPlace);
  std::vector<FileRange> merged;
  for (const FileRange& range : ranges) Append(range, &merged);
  return merged;
}

// Adds what a box takes of one slice. Runs of one slice ascend, so they merge as they come.
void AddRuns(const SliceOverlap& overlap, const Box& box, uint64_t item_size,
             std::vector<FileRange>* ranges) {
  const StoredSlice& slice = *overlap.slice;
  if (slice.encoding != Encoding::kDense) {
    ranges->push_back({slice.file, slice.offset, slice.size});
    return;
  }
  const CopyLayout layout(overlap.slice_box, box, overlap.intersection, item_size);
  std::vector<FileRange> own;
  layout.ForEach(0, layout.count(), [&](const CopyLayout::Span& run) {
    Append({slice.file, slice.offset + run.source, layout.span_size()}, &own);
  });
  ranges->insert(ranges->end(), own.begin(), own.end());
}

// Rows as ranges [first, end), ascending.
std::vector<Extent> Spans(std::span<const int64_t> rows) {
  std::vector<int64_t> sorted(rows.begin(), rows.end());
  if (!std::is_sorted(sorted.begin(), sorted.end())) std::sort(sorted.begin(), sorted.end());
  std::vector<Extent> spans;
  for (const int64_t row : sorted) {
    if (!spans.empty() && row <= spans.back().end()) {
      spans.back().length = std::max(spans.back().length, row + 1 - spans.back().start);
    } else {
      spans.push_back({row, 1});
    }
  }
  return spans;
}

// Adds the ranges of rows of one slice, whose rows are contiguous.
void AddRows(const SliceOverlap& overlap, std::span<const Extent> spans,
             std::vector<FileRange>* ranges) {
  const StoredSlice& slice = *overlap.slice;
  const Extent rows = overlap.slice_box[0];
  const uint64_t row_size = slice.size / static_cast<uint64_t>(rows.length);
  auto span = std::lower_bound(spans.begin(), spans.end(), rows.start,
                               [](const Extent& s, int64_t row) { return s.end() <= row; });
  std::vector<FileRange> own;
  for (; span != spans.end() && span->start < rows.end(); ++span) {
    if (slice.encoding != Encoding::kDense) {
      ranges->push_back({slice.file, slice.offset, slice.size});
      return;
    }
    const int64_t first = std::max(span->start, rows.start);
    const int64_t end = std::min(span->end(), rows.end());
    Append({slice.file, slice.offset + static_cast<uint64_t>(first - rows.start) * row_size,
            static_cast<uint64_t>(end - first) * row_size},
           &own);
  }
  ranges->insert(ranges->end(), own.begin(), own.end());
}

// Throws CorruptionError when some of the rows are stored nowhere or twice.
void RequireSpans(const RowCover& cover, std::span<const Extent> spans) {
  if (!cover.has_errors) return;
  for (const Extent& span : spans) {
    for (int64_t row = span.start; row < span.end();) {
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

// Whether some of a slice is in the ranges, and whether all of it is.
struct Presence {
  bool any;
  bool all;
};

Presence Find(const StoredSlice& slice, std::span<const FileRange> ranges) {
  auto range = std::lower_bound(
      ranges.begin(), ranges.end(), slice, [](const FileRange& r, const StoredSlice& p) {
        return std::make_tuple(r.file, r.offset + r.size) <= std::make_tuple(p.file, p.offset);
      });
  if (range == ranges.end() || range->file != slice.file ||
      range->offset >= slice.offset + slice.size) {
    return {false, false};
  }
  return {true, range->offset <= slice.offset &&
                    range->offset + range->size >= slice.offset + slice.size};
}

void InspectPages(const Checkpoint& checkpoint, std::span<const FileRange> ranges,
                  bool allow_direct, RangeStats* facts) {
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
    facts->num_touched += range.size;
    if (i % step != 0) continue;
    const File& file = checkpoint.files().Get(range.file);
    const std::optional<uint64_t> resident =
        ResidentBytes(file, range.offset, std::min(range.size, file.size() - range.offset));
    if (resident) {
      facts->num_probed += range.size;
      facts->num_resident += *resident;
    }
    facts->prefers_direct |=
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
  for (const SliceOverlap& overlap : overlaps) AddRuns(overlap, box, info.item_size, &ranges);
  return Merged(std::move(ranges));
}

std::vector<FileRange> RangesOfRows(const Checkpoint& checkpoint, const Tensor& tensor,
                                    std::span<const int64_t> rows) {
  RequireKnownType(tensor);
  if (rows.empty() || tensor.num_elements == 0) return {};
  const std::vector<Extent> spans = Spans(rows);
  const RowCover cover = CoverRows(checkpoint.catalog(), tensor);
  RequireSpans(cover, spans);
  std::vector<FileRange> ranges;
  for (const SliceOverlap& overlap : cover.overlaps) {
    const size_t before = ranges.size();
    AddRows(overlap, spans, &ranges);
    if (ranges.size() != before) checkpoint.CheckSlice(tensor, *overlap.slice, Compared::kNo);
  }
  return Merged(std::move(ranges));
}

RangeStats InspectRanges(const Checkpoint& checkpoint, const Tensor& tensor,
                         std::span<const FileRange> ranges) {
  RangeStats facts;
  for (const FileRange& range : ranges) facts.num_bytes += range.size;
  for (const StoredSlice& slice : checkpoint.catalog().Slices(tensor)) {
    const Presence presence = Find(slice, ranges);
    facts.num_slices += presence.any ? 1 : 0;
    facts.num_whole += presence.all ? 1 : 0;
    facts.num_verified += presence.all && checkpoint.IsVerified(slice) ? 1 : 0;
  }
  InspectPages(checkpoint, ranges, AllowsDirect(checkpoint, facts.num_bytes), &facts);
  return facts;
}

}  // namespace tensorbundle
