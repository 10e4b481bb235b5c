// SPDX-License-Identifier: Apache-2.0
// The raw Snappy format (not the framed one), decoded within bounds.
#pragma once

#include <optional>
#include <vector>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Decompresses one block. Nothing when the bytes are malformed or do not give exactly the length
// they claim. A claim that no Snappy stream of this size could honour is refused before anything is
// allocated.
std::optional<std::vector<uint8_t>> SnappyUncompress(ByteSpan compressed);

}  // namespace tensorbundle
