// SPDX-License-Identifier: Apache-2.0
// What a data file is that cannot be what the index says, and why one is not there: sentences for
// messages.
#pragma once

#include <cstdint>
#include <string>

#include "tensorbundle/io/file.h"

namespace tensorbundle {

// What a file is that is not the data file which the index speaks of.
struct ForeignFile {
  std::string reason;       // "": it may be that data file
  bool is_certain = false;  // no checksum of its bytes can be right
};

// Compares a file with a data file whose stored slices end at `end`. A file of just that size is
// not looked into. Reads at most its first 512 bytes. Never throws for a file that cannot be read:
// whoever reads it next is told.
ForeignFile Diagnose(const File& file, uint64_t end);

// "the data file P is missing ...": a link to nowhere, or files nearby that may be it under another
// name. For a path that was not found. Reads the names in its directory, the first few thousand.
std::string WhyMissing(const std::string& path);

}  // namespace tensorbundle
