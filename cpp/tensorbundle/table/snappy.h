// SPDX-License-Identifier: Apache-2.0
// Bounds-checked decompression of the raw Snappy format (without framing):
//
//   varint32 size of the output  |  (tag, literal bytes | tag, offset to copy from)*
#pragma once

#include <optional>
#include <vector>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Decompresses one block. Returns nothing if the bytes are malformed or their output does not have
// the stated size. Allocates no memory for a size that no Snappy stream of this length can reach.
std::optional<std::vector<uint8_t>> SnappyUncompress(ByteSpan compressed);

}  // namespace tensorbundle
