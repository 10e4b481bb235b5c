// SPDX-License-Identifier: Apache-2.0
// What of a file is in memory already.
#pragma once

#include <cstdint>
#include <optional>

#include "tensorbundle/io/file.h"

namespace tensorbundle {

// How many bytes of [offset, offset + size), which lies inside the file, are in the page cache,
// counted in whole pages. Reads nothing and brings nothing in. Nothing where the system does not
// tell: Linux tells only those who own the file or may write to it.
std::optional<uint64_t> ResidentBytes(const File& file, uint64_t offset, uint64_t size);

}  // namespace tensorbundle
