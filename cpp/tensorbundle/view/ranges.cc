// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/ranges.h"

#include <unistd.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/page_cache.h"
#include "tensorbundle/view/read_box.h"
#include "tensorbundle/view/row_reader.h"
#include "tensorbundle/view/runs.h"
#include "tensorbundle/view/tiling.h"

namespace tensorbundle {
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

// Adds what a box takes of one piece. Runs of one piece ascend, so they merge as they come.
void AddRuns(const PieceOverlap& overlap, const Box& box, uint64_t item_size,
             std::vector<FileRange>* ranges) {
  const Piece& piece = *overlap.piece;
  if (piece.encoding != Encoding::kDense) {
    ranges->push_back({piece.file, piece.offset, piece.size});
    return;
  }
  const RunLayout layout(overlap.piece_box, box, overlap.common, item_size);
  std::vector<FileRange> own;
  layout.ForEach(0, layout.count(), [&](const RunLayout::Run& run) {
    Append({piece.file, piece.offset + run.source, layout.run_size()}, &own);
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

// Adds what rows take of one piece, whose rows lie one behind the other.
void AddRows(const PieceOverlap& overlap, std::span<const Extent> spans,
             std::vector<FileRange>* ranges) {
  const Piece& piece = *overlap.piece;
  const Extent rows = overlap.piece_box[0];
  const uint64_t row_size = piece.size / static_cast<uint64_t>(rows.length);
  auto span = std::lower_bound(spans.begin(), spans.end(), rows.start,
                               [](const Extent& s, int64_t row) { return s.end() <= row; });
  std::vector<FileRange> own;
  for (; span != spans.end() && span->start < rows.end(); ++span) {
    if (piece.encoding != Encoding::kDense) {
      ranges->push_back({piece.file, piece.offset, piece.size});
      return;
    }
    const int64_t first = std::max(span->start, rows.start);
    const int64_t end = std::min(span->end(), rows.end());
    Append({piece.file, piece.offset + static_cast<uint64_t>(first - rows.start) * row_size,
            static_cast<uint64_t>(end - first) * row_size},
           &own);
  }
  ranges->insert(ranges->end(), own.begin(), own.end());
}

// Throws CorruptionError when some of the rows are stored nowhere or twice.
void RequireSpans(const RowCover& cover, std::span<const Extent> spans) {
  if (!cover.has_faults) return;
  for (const Extent& span : spans) {
    for (int64_t row = span.start; row < span.end();) {
      const RowBandCover& band = cover.At(row);
      if (!band.fault.empty()) throw CorruptionError(band.fault);
      row = band.end;
    }
  }
}

void CheckPieces(const Checkpoint& checkpoint, const Tensor& tensor,
                 std::span<const PieceOverlap> overlaps) {
  for (const PieceOverlap& overlap : overlaps) {
    checkpoint.CheckPiece(tensor, *overlap.piece, Compared::kNo);
  }
}

// Whether some of a piece is in the ranges, and whether all of it is.
struct Presence {
  bool any;
  bool all;
};

Presence Find(const Piece& piece, std::span<const FileRange> ranges) {
  auto range =
      std::lower_bound(ranges.begin(), ranges.end(), piece, [](const FileRange& r, const Piece& p) {
        return std::make_tuple(r.file, r.offset + r.size) <= std::make_tuple(p.file, p.offset);
      });
  if (range == ranges.end() || range->file != piece.file ||
      range->offset >= piece.offset + piece.size) {
    return {false, false};
  }
  return {true, range->offset <= piece.offset &&
                    range->offset + range->size >= piece.offset + piece.size};
}

void InspectPages(const Checkpoint& checkpoint, std::span<const FileRange> ranges,
                  bool allow_direct, RangeFacts* facts) {
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
  const std::vector<PieceOverlap> overlaps = CoverBox(checkpoint.catalog(), tensor, box);
  CheckPieces(checkpoint, tensor, overlaps);
  std::vector<FileRange> ranges;
  for (const PieceOverlap& overlap : overlaps) AddRuns(overlap, box, info.item_size, &ranges);
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
  for (const PieceOverlap& overlap : cover.overlaps) {
    const size_t before = ranges.size();
    AddRows(overlap, spans, &ranges);
    if (ranges.size() != before) checkpoint.CheckPiece(tensor, *overlap.piece, Compared::kNo);
  }
  return Merged(std::move(ranges));
}

RangeFacts InspectRanges(const Checkpoint& checkpoint, const Tensor& tensor,
                         std::span<const FileRange> ranges) {
  RangeFacts facts;
  for (const FileRange& range : ranges) facts.num_bytes += range.size;
  for (const Piece& piece : checkpoint.catalog().Pieces(tensor)) {
    const Presence presence = Find(piece, ranges);
    facts.num_pieces += presence.any ? 1 : 0;
    facts.num_whole += presence.all ? 1 : 0;
    facts.num_verified += presence.all && checkpoint.IsVerified(piece) ? 1 : 0;
  }
  InspectPages(checkpoint, ranges, AllowsDirect(checkpoint, facts.num_bytes), &facts);
  return facts;
}

}  // namespace tensorbundle
