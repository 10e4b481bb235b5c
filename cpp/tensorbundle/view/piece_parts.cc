// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/piece_parts.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/view/strings.h"
#include "tensorbundle/view/tiling.h"

namespace tensorbundle {
namespace {

// Parts of one piece, by offset, none twice.
class PieceVerifier {
 public:
  PieceVerifier(const Checkpoint& checkpoint, const Tensor& tensor, const Piece& piece, int threads)
      : checkpoint_(checkpoint), tensor_(tensor), piece_(piece), threads_(threads) {}

  void Verify(std::vector<PiecePart> parts) const {
    checkpoint_.CheckPiece(tensor_, piece_, Compared::kYes);
    if (checkpoint_.records() != nullptr) {
      checkpoint_.records()->Verify(tensor_, piece_);
    } else if (piece_.encoding != Encoding::kDense) {
      ReadStrings(checkpoint_, tensor_, piece_, /*verify=*/true);
    } else {
      std::erase_if(parts, [](const PiecePart& part) { return part.size == 0; });
      do {
        CheckChecksum(checkpoint_, tensor_, piece_, TakeCover(&parts));
      } while (!parts.empty());
    }
  }

 private:
  // Puts together the piece's checksum from parts that do not overlap, and takes them out: those
  // that are left (someone else read the same bytes) make up another one.
  uint32_t TakeCover(std::vector<PiecePart>* parts) const {
    uint32_t crc = 0;
    uint64_t position = 0;
    std::vector<PiecePart> left;
    for (const PiecePart& part : *parts) {
      if (!RangeFits(part.offset, part.size, piece_.size)) ThrowOutside(part);
      if (part.offset < position) {
        left.push_back(part);
        continue;
      }
      crc = ReadGap(crc, position, part.offset - position);
      crc = crc32c::Combine(crc, part.crc, part.size);
      position = part.offset + part.size;
    }
    *parts = std::move(left);
    return ReadGap(crc, position, piece_.size - position);
  }

  uint32_t ReadGap(uint32_t crc, uint64_t offset, uint64_t size) const {
    if (size == 0) return crc;
    const File& file = checkpoint_.files().Get(piece_.file);
    const uint32_t gap =
        ParallelChecksum(file, piece_.offset + offset, size, threads_, [](uint64_t) {});
    return crc32c::Combine(crc, gap, size);
  }

  [[noreturn]] void ThrowOutside(const PiecePart& part) const {
    throw CorruptionError(Describe(checkpoint_.catalog(), tensor_, piece_) + " has " +
                          std::to_string(piece_.size) + " bytes, but " + std::to_string(part.size) +
                          " were read from offset " + std::to_string(part.offset) +
                          " in it; was the checkpoint rewritten meanwhile?");
  }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const Piece& piece_;
  const int threads_;
};

}  // namespace

void VerifyParts(const Checkpoint& checkpoint, const Tensor& tensor,
                 std::span<const PiecePart> parts, int threads) {
  const std::span<const Piece> pieces = checkpoint.catalog().Pieces(tensor);
  std::vector<PiecePart> sorted(parts.begin(), parts.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (auto first = sorted.begin(); first != sorted.end();) {
    if (first->piece >= pieces.size()) {
      throw std::invalid_argument("a part is of stored piece " + std::to_string(first->piece) +
                                  " of a tensor that has " + std::to_string(pieces.size()));
    }
    const auto last = std::find_if(
        first, sorted.end(), [&](const PiecePart& part) { return part.piece != first->piece; });
    PieceVerifier(checkpoint, tensor, pieces[first->piece], threads).Verify({first, last});
    first = last;
  }
}

std::vector<PiecePart> UnreadPieces(const Tensor& tensor) {
  std::vector<PiecePart> parts;
  for (uint64_t piece = 0; piece < tensor.num_pieces; ++piece) parts.push_back({.piece = piece});
  return parts;
}

std::vector<PiecePart> UnreadPieces(const Checkpoint& checkpoint, const Tensor& tensor,
                                    const Box& box) {
  if (Volume(box) == 0) return {};
  const Piece* first = checkpoint.catalog().Pieces(tensor).data();
  std::vector<PiecePart> parts;
  for (const PieceOverlap& overlap : CoverBox(checkpoint.catalog(), tensor, box)) {
    parts.push_back({.piece = static_cast<uint64_t>(overlap.piece - first)});
  }
  return parts;
}

}  // namespace tensorbundle
