// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/tiling.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <span>
#include <string>

#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

// Looks at pieces before we give up. A grid takes a few per piece and axis; what no straight cut
// divides, or what cuts divide one piece at a time, takes the square of its pieces. Every
// partitioner that TensorFlow has makes grids.
constexpr uint64_t kMaxLooks = 100'000'000;
constexpr uint64_t kMaxLooksPerPiece = 1'000;  // a grid of many axes

// Parts of bands in a row cover. Real tilings need one per piece; a table that is larger than this
// would rival the data.
constexpr uint64_t kMaxBandParts = uint64_t{1} << 22;

using Pieces = std::span<PieceOverlap>;

std::string InTensor(const Tensor& tensor) { return "tensor " + EscapeBytes(tensor.name) + ": "; }

// Sorts the pieces along an axis and returns where straight cuts across it separate them: the first
// index of every group, and the end.
std::vector<size_t> CutAcross(Pieces pieces, size_t axis) {
  std::sort(pieces.begin(), pieces.end(), [axis](const PieceOverlap& a, const PieceOverlap& b) {
    return a.piece_box[axis].start < b.piece_box[axis].start;
  });
  std::vector<size_t> groups = {0};
  int64_t end = pieces[0].piece_box[axis].end();
  for (size_t i = 1; i < pieces.size(); ++i) {
    if (pieces[i].piece_box[axis].start >= end) groups.push_back(i);
    end = std::max(end, pieces[i].piece_box[axis].end());
  }
  groups.push_back(pieces.size());
  return groups;
}

bool Overlap(const Box& a, const Box& b) {
  for (size_t axis = 0; axis < a.size(); ++axis) {
    if (a[axis].start >= b[axis].end() || b[axis].start >= a[axis].end()) return false;
  }
  return true;
}

// Pieces that no straight cut separates, compared in pairs.
const PieceOverlap* FindOverlapInPairs(Pieces pieces) {
  for (size_t i = 0; i < pieces.size(); ++i) {
    for (size_t j = i + 1; j < pieces.size(); ++j) {
      if (Overlap(pieces[i].piece_box, pieces[j].piece_box)) return &pieces[j];
    }
  }
  return nullptr;
}

// A piece that overlaps another, or null. Cuts the set in two wherever a straight cut goes through:
// near-linear for the tilings that exist, where comparing all pairs is not.
const PieceOverlap* FindOverlap(const Tensor& tensor, Pieces pieces, uint64_t* looks_left) {
  std::vector<Pieces> open = {pieces};
  const auto look = [&](uint64_t times) {
    if (times > *looks_left) {
      throw UnsupportedError(InTensor(tensor) + std::to_string(pieces.size()) +
                             " slices lie in a pattern that straight cuts do not divide");
    }
    *looks_left -= times;
  };
  while (!open.empty()) {
    const Pieces group = open.back();
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
    if (const PieceOverlap* found = FindOverlapInPairs(group)) return found;
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

uint64_t LooksFor(size_t num_pieces) { return kMaxLooks + kMaxLooksPerPiece * num_pieces; }

// Throws CorruptionError unless every element of the box is in exactly one of the pieces. Sorts
// them.
void RequireCover(const Tensor& tensor, Pieces overlaps, const Box& box, uint64_t* looks_left) {
  uint64_t covered = 0;
  for (const PieceOverlap& overlap : overlaps) covered += Volume(overlap.common);
  if (const PieceOverlap* found = FindOverlap(tensor, overlaps, looks_left)) {
    throw CorruptionError(InTensor(tensor) + "stored slice " + ToString(found->piece_box) +
                          " overlaps another one");
  }
  if (covered != Volume(box)) {
    throw CorruptionError(InTensor(tensor) + "stored in part: the stored slices hold " +
                          std::to_string(covered) + " of the " + std::to_string(Volume(box)) +
                          " elements of " + ToString(box));
  }
}

// The parts of the pieces that lie in a box.
std::vector<PieceOverlap> OverlapsWith(const Catalog& catalog, const Tensor& tensor,
                                       const Box& box) {
  std::vector<PieceOverlap> overlaps;
  for (const Piece& piece : catalog.Pieces(tensor)) {
    Box piece_box = catalog.BoxOf(tensor, piece);
    std::optional<Box> common = Intersect(piece_box, box);
    if (!common) continue;
    overlaps.push_back({&piece, std::move(piece_box), std::move(*common)});
  }
  return overlaps;
}

// Bands that end wherever a piece begins or ends, with the pieces that each takes its rows from.
std::vector<RowBandCover> CutIntoBands(std::span<const int64_t> shape, Pieces overlaps) {
  std::vector<int64_t> cuts{0, shape[0]};
  for (const PieceOverlap& overlap : overlaps) {
    cuts.push_back(overlap.piece_box[0].start);
    cuts.push_back(overlap.piece_box[0].end());
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<RowBandCover> bands;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) bands.push_back({cuts[i], cuts[i + 1], {}, {}});
  return bands;
}

}  // namespace

std::vector<PieceOverlap> CoverBox(const Catalog& catalog, const Tensor& tensor, const Box& box) {
  std::vector<PieceOverlap> overlaps = OverlapsWith(catalog, tensor, box);
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
            [](const PieceOverlap& a, const PieceOverlap& b) {
              return a.piece_box[0].start < b.piece_box[0].start;
            });
  cover.bands = CutIntoBands(shape, cover.overlaps);
  uint64_t num_parts = 0;
  for (size_t i = 0; i < cover.overlaps.size(); ++i) {
    const Extent rows = cover.overlaps[i].piece_box[0];
    auto band = std::lower_bound(cover.bands.begin(), cover.bands.end(), rows.start,
                                 [](const RowBandCover& b, int64_t row) { return b.begin < row; });
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
  for (RowBandCover& band : cover.bands) {
    Box box = whole;
    box[0] = {band.begin, band.end - band.begin};
    std::vector<PieceOverlap> own;
    for (const size_t i : band.overlaps) {
      own.push_back(cover.overlaps[i]);
      own.back().common = *Intersect(own.back().piece_box, box);
    }
    try {
      RequireCover(tensor, own, box, &looks_left);
    } catch (const CorruptionError& error) {
      band.fault = error.what();
    }
  }
  return cover;
}

const RowBandCover& RowCover::At(int64_t row) const {
  const auto next = std::upper_bound(
      bands.begin(), bands.end(), row,
      [](int64_t wanted, const RowBandCover& band) { return wanted < band.begin; });
  return *(next - 1);
}

std::vector<const Piece*> ContiguousPieces(const Catalog& catalog, const Tensor& tensor) {
  struct Run {
    uint64_t start;
    const Piece* piece;
    uint64_t num_elements;
  };
  std::vector<Run> runs;
  for (const Piece& piece : catalog.Pieces(tensor)) {
    if (piece.encoding != Encoding::kDense) return {};
    const Box box = catalog.BoxOf(tensor, piece);
    const std::optional<uint64_t> start = RunStart(box, catalog.Shape(tensor));
    if (!start) return {};
    runs.push_back({*start, &piece, Volume(box)});
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.start < b.start; });
  uint64_t element = 0;
  std::vector<const Piece*> pieces;
  for (const Run& run : runs) {
    const Piece* before = pieces.empty() ? run.piece : pieces.back();
    const bool follows = pieces.empty() || run.piece->offset == before->offset + before->size;
    if (run.start != element || run.piece->file != before->file || !follows) return {};
    element += run.num_elements;
    pieces.push_back(run.piece);
  }
  if (element != tensor.num_elements) return {};
  return pieces;
}

}  // namespace tensorbundle
