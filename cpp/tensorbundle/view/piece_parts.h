// SPDX-License-Identifier: Apache-2.0
// Comparing checksums of pieces that were read in parts, by different calls or processes: only the
// parts' checksums travel, not their bytes.
#pragma once

#include <span>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/view/read_box.h"

namespace tensorbundle {

// Compares every piece that a part names with its stored checksum: the parts' checksums are put
// together, and what lies between them is read here, by threads. Parts may come in any order and
// repeat each other; every one of them is compared. Throws CorruptionError for a difference, and
// for parts that do not lie in the piece; std::invalid_argument for a piece that the tensor does
// not have; as File::ReadAt.
void VerifyParts(const Checkpoint& checkpoint, const Tensor& tensor,
                 std::span<const PiecePart> parts, int threads);

// A part without bytes for every piece of the tensor: VerifyParts then reads all of them.
std::vector<PiecePart> UnreadPieces(const Tensor& tensor);

// The same for the pieces that a box meets.
std::vector<PiecePart> UnreadPieces(const Checkpoint& checkpoint, const Tensor& tensor,
                                    const Box& box);

}  // namespace tensorbundle
