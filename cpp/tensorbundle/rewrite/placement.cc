// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/rewrite/placement.h"

#include <algorithm>
#include <tuple>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/entry.h"

namespace tensorbundle {
namespace {

constexpr auto kMaxFileSize = static_cast<uint64_t>(INT64_MAX);

auto OrderOf(const PlacedPiece& piece) {
  return std::tie(piece.shard, piece.offset, piece.size, piece.encoding, piece.num_elements,
                  piece.masked_checksum, piece.has_checksum, piece.record);
}

Encoding EncodingOf(int32_t dtype) {
  if (static_cast<DataType>(dtype) == DataType::kString) return Encoding::kStrings;
  if (static_cast<DataType>(dtype) == DataType::kVariant) return Encoding::kVariants;
  return Encoding::kDense;  // those we do not know too: every one so far is
}

PlacedPiece PieceOf(const BundleEntry& entry, size_t record) {
  PlacedPiece piece;
  piece.record = record;
  piece.shard = entry.shard;
  piece.offset = static_cast<uint64_t>(entry.offset);
  piece.size = static_cast<uint64_t>(entry.size);
  piece.num_elements = *CheckedVolume(entry.dims);
  piece.masked_checksum = entry.masked_checksum;
  piece.has_checksum = entry.has_checksum;
  piece.encoding = EncodingOf(entry.dtype);
  return piece;
}

bool IsPossible(const BundleEntry& entry, const BundleHeader& header) {
  return entry.shard >= 0 && entry.shard < header.num_shards && entry.offset >= 0 &&
         entry.size >= 0 && entry.size <= INT64_MAX - entry.offset && CheckedVolume(entry.dims);
}

// The multiple of `alignment`, a power of two, at or after `position`. Neither exceeds INT64_MAX.
uint64_t RoundUp(uint64_t position, uint64_t alignment) {
  return (position + alignment - 1) & ~(alignment - 1);
}

}  // namespace

bool PlacedPiece::IsSameAs(const PlacedPiece& other) const {
  PlacedPiece same = other;
  same.record = record;
  return OrderOf(*this) == OrderOf(same);
}

std::vector<PlacedPiece> PlacePieces(const TableEntries& entries, const BundleHeader& header,
                                     uint64_t alignment, const std::string& path) {
  std::vector<PlacedPiece> pieces;
  pieces.reserve(entries.size());
  BundleEntry entry;
  for (size_t i = 1; i < entries.size(); ++i) {
    if (!DecodeBundleEntry(entries.value(i), &entry) ||
        (entry.num_slices == 0 && !IsPossible(entry, header))) {
      throw CorruptionError(path + ": the record " + EscapeBytes(entries.key(i)) +
                            " is impossible");
    }
    if (entry.num_slices == 0) pieces.push_back(PieceOf(entry, i));
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const PlacedPiece& a, const PlacedPiece& b) { return OrderOf(a) < OrderOf(b); });
  uint64_t end = 0;
  const PlacedPiece* before = nullptr;
  for (PlacedPiece& piece : pieces) {
    if (before == nullptr || before->shard != piece.shard) end = 0;
    if (before != nullptr && piece.IsSameAs(*before)) {
      piece.new_offset = before->new_offset;
    } else if (piece.size > 0) {  // one without bytes stays at 0, which is inside of any file
      piece.new_offset = RoundUp(end, piece.size >= kLargePiece ? alignment : kSmallAlignment);
      if (!RangeFits(piece.new_offset, piece.size, kMaxFileSize)) {
        throw CorruptionError(path + ": the record " + EscapeBytes(entries.key(piece.record)) +
                              " and those before it would need a file of more than " +
                              std::to_string(kMaxFileSize) + " bytes");
      }
      end = piece.new_offset + piece.size;
    }
    before = &piece;
  }
  return pieces;
}

}  // namespace tensorbundle
