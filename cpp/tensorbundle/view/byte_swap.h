// SPDX-License-Identifier: Apache-2.0
// Byte order, for checkpoints that big-endian machines wrote.
#pragma once

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Reverses every `unit` bytes in place; `unit` is 1, 2, 4 or 8 and divides the size.
void SwapBytes(MutableByteSpan bytes, unsigned unit);

}  // namespace tensorbundle
