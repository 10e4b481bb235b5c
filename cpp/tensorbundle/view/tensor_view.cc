// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/tensor_view.h"

#include <map>
#include <vector>

#include "tensorbundle/view/read_box.h"
#include "tensorbundle/view/runs.h"
#include "tensorbundle/view/tiling.h"
#include "tensorbundle/view/verify.h"

namespace tensorbundle {
namespace {

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

// One range of one file that is all of the tensor.
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
  const std::vector<const Piece*> pieces = ContiguousPieces(checkpoint.catalog(), tensor);
  if (pieces.empty()) {
    range.why_not = tensor.num_pieces == 1 ? kMustBeDecoded : kScattered;
    return range;
  }
  for (const Piece* piece : pieces) {
    RequireReadable(checkpoint, tensor, *piece);
    range.size += piece->size;
  }
  range.file = pieces[0]->file;
  range.offset = pieces[0]->offset;
  return range;
}

TensorView ViewRange(const Checkpoint& checkpoint, uint32_t file, uint64_t offset, uint64_t size) {
  std::shared_ptr<const Mapping> mapping = checkpoint.files().MapForViews(file);
  if (mapping == nullptr) return {{}, {}, kNeverMaps};
  const ByteSpan bytes = mapping->bytes().subspan(offset, size);
  return {std::move(mapping), bytes};
}

}  // namespace

StoredRun LocateBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box) {
  if (const char* why_not = WhyNot(checkpoint, tensor)) return {.why_not = why_not};
  const uint64_t item_size = RequireKnownType(tensor).item_size;
  std::map<uint64_t, StoredRun> runs;  // by where they belong in the box
  for (const PieceOverlap& overlap : CoverBox(checkpoint.catalog(), tensor, box)) {
    const Piece& piece = *overlap.piece;
    RequireReadable(checkpoint, tensor, piece);
    if (piece.encoding != Encoding::kDense) return {.why_not = kMustBeDecoded};
    const RunLayout layout(overlap.piece_box, box, overlap.common, item_size);
    if (layout.count() != 1) return {.why_not = "its rows are parts of longer stored rows"};
    runs[layout.first_destination()] = {piece.file, piece.offset + layout.first_source(),
                                        layout.run_size()};
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

TensorView ViewPiece(const Checkpoint& checkpoint, const Tensor& tensor, const Piece& piece) {
  if (const char* why_not = WhyNot(checkpoint, tensor)) return {{}, {}, why_not};
  if (piece.encoding != Encoding::kDense) return {{}, {}, kMustBeDecoded};
  RequireReadable(checkpoint, tensor, piece);
  return ViewRange(checkpoint, piece.file, piece.offset, piece.size);
}

TensorView CopyOnWriteTensor(const Checkpoint& checkpoint, const Tensor& tensor) {
  const StoredRange range = FindStoredRange(checkpoint, tensor);
  if (range.why_not == kScattered || range.why_not == kMustBeDecoded) {
    CoverBox(checkpoint.catalog(), tensor, WholeBox(checkpoint.catalog().Shape(tensor)));
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

}  // namespace tensorbundle
