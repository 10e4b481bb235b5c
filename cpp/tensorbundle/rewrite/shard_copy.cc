// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/rewrite/shard_copy.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/rewrite/elements_checksum.h"

namespace tensorbundle {
namespace {

// With a chunk for each, what the copy takes in memory.
constexpr int kMaxThreads = 32;
// Parts that are begun before their checksums are looked at: few enough that damage is seen soon,
// enough that starting the threads does not count.
constexpr size_t kMaxBatch = 256;

// What is copied by one thread in one go.
struct Part {
  const PlacedPiece* piece;
  uint64_t start;  // in the piece
  uint64_t size;
  std::optional<uint32_t> checksum{};
};

class ShardCopier {
 public:
  ShardCopier(const File& source, const AtomicFile& out, const ShardCopyOptions& options)
      : source_(source), out_(out), options_(options) {}

  void Add(const PlacedPiece& piece) {
    if (piece.encoding != Encoding::kDense || piece.size == 0) {
      AddPart({&piece, 0, piece.size});  // the lengths must be seen in order
      return;
    }
    for (uint64_t start = 0; start < piece.size; start += kReadChunkSize) {
      AddPart({&piece, start, std::min(kReadChunkSize, piece.size - start)});
    }
  }

  // Copies what has been added since the last time.
  void Flush() {
    ParallelFor(batch_.size(), std::min(options_.threads, kMaxThreads),
                [&](size_t i) { Copy(&batch_[i]); });
    for (const Part& part : batch_) Account(part);
    batch_.clear();
    out_.StartWriteback();
  }

 private:
  void AddPart(const Part& part) {
    batch_.push_back(part);
    if (batch_.size() == kMaxBatch) Flush();
  }

  void Copy(Part* part) const {
    const PlacedPiece& piece = *part->piece;
    const uint64_t chunk = std::min(kReadChunkSize, part->size);
    const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(chunk);
    const auto read = [&](uint64_t at, uint64_t size) {
      const MutableByteSpan bytes(buffer.get(), size);
      source_.ReadAt(piece.offset + at, bytes);
      out_.WriteAt(piece.new_offset + at, bytes);
      options_.progress(size);
      return ByteSpan(bytes);
    };
    if (piece.encoding == Encoding::kDense) {
      const ByteSpan bytes = read(part->start, part->size);
      part->checksum = crc32c::Value(bytes.data(), bytes.size());
      return;
    }
    ElementsChecksum elements(piece.encoding, piece.num_elements, options_.big_endian);
    for (uint64_t at = 0; at < piece.size; at += chunk) {
      elements.Extend(read(at, std::min(chunk, piece.size - at)));
    }
    part->checksum = elements.Value();
  }

  // Joins a part's checksum to that of the parts before it.
  void Account(const Part& part) {
    const PlacedPiece& piece = *part.piece;
    if (!part.checksum) Throw(piece, "its elements are malformed, or a checksum in them differs");
    if (part.start == 0) checksum_ = 0;
    checksum_ = crc32c::Combine(checksum_, *part.checksum, part.size);
    if (part.start + part.size < piece.size) return;
    if (!piece.has_checksum) Throw(piece, "the index stores no checksum to verify it with");
    const uint32_t expected = crc32c::Unmask(piece.masked_checksum);
    if (checksum_ != expected) {
      Throw(piece, "the stored CRC32C is " + std::to_string(expected) + ", the bytes give " +
                       std::to_string(checksum_));
    }
  }

  [[noreturn]] void Throw(const PlacedPiece& piece, const std::string& what) const {
    throw CorruptionError(source_.path() + ": " + options_.name_of(piece) + " at offset " +
                          std::to_string(piece.offset) + ", " + std::to_string(piece.size) +
                          " bytes: " + what);
  }

  const File& source_;
  const AtomicFile& out_;
  const ShardCopyOptions& options_;
  std::vector<Part> batch_;
  uint32_t checksum_ = 0;  // of the piece whose parts are being accounted for, up to there
};

}  // namespace

void CheckInside(const File& source, std::span<const PlacedPiece> pieces,
                 const ShardCopyOptions& options) {
  for (const PlacedPiece& piece : pieces) {
    if (RangeFits(piece.offset, piece.size, source.size())) continue;
    throw CorruptionError(source.path() + " has " + std::to_string(source.size()) + " bytes, but " +
                          options.name_of(piece) + " takes " + std::to_string(piece.size) +
                          " at offset " + std::to_string(piece.offset) +
                          "; was the file truncated?");
  }
}

void CopyPieces(const File& source, std::span<const PlacedPiece> pieces, const AtomicFile& out,
                const ShardCopyOptions& options) {
  ShardCopier copier(source, out, options);
  const PlacedPiece* before = nullptr;
  for (const PlacedPiece& piece : pieces) {
    if (!IsCopiedWith(piece, before)) copier.Add(piece);
    before = &piece;
  }
  copier.Flush();
}

}  // namespace tensorbundle
