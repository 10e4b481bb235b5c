// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/compare_parts.h"

#include "tensorbundle/view/piece_parts.h"
#include "tensorflow_op/threads.h"

namespace tensorbundle::op {

void CompareParts(const OpenTensor& source, std::span<const PiecePart> parts, int64_t threads) {
  uint64_t size = 0;
  for (const Piece& piece : source.checkpoint->catalog().Pieces(*source.tensor)) {
    size += piece.size;
  }
  VerifyParts(*source.checkpoint, *source.tensor, parts, ThreadsFor(threads, size));
}

}  // namespace tensorbundle::op
