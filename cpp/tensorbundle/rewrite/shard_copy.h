// SPDX-License-Identifier: Apache-2.0
// Copying the pieces of one shard to their new places, and checking them on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "tensorbundle/io/atomic_file.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/rewrite/placement.h"

namespace tensorbundle {

struct ShardCopyOptions {
  bool big_endian = false;
  int threads = 1;
  std::function<std::string(const PlacedPiece&)> name_of;  // of a piece, for messages
  std::function<void(uint64_t)> progress;  // called from any thread; may throw to stop
};

// Whether two neighbours in PlacePieces' order are one piece to copy.
inline bool IsCopiedWith(const PlacedPiece& piece, const PlacedPiece* before) {
  return before != nullptr && piece.IsSameAs(*before);
}

// Throws CorruptionError, naming the piece, when one does not lie inside `source`.
void CheckInside(const File& source, std::span<const PlacedPiece> pieces,
                 const ShardCopyOptions& options);

// Copies pieces that lie inside `source` to `out`, which has been made as long as they need. Every
// byte is read once; memory is a chunk per thread. Throws CorruptionError, naming the piece, when
// its bytes do not have the checksum that its record stores or no checksum is stored; as
// File::ReadAt and AtomicFile::WriteAt.
void CopyPieces(const File& source, std::span<const PlacedPiece> pieces, const AtomicFile& out,
                const ShardCopyOptions& options);

}  // namespace tensorbundle
