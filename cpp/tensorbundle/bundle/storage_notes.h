// SPDX-License-Identifier: Apache-2.0
// What is odd about how a checkpoint lies in its files, though nothing is wrong with it.
#pragma once

#include <string>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"

namespace tensorbundle {

// Pieces that share bytes, and files that go on behind their last piece: both are legal, and both
// can be the trace of a mix-up. One sentence each, the first few of a kind.
std::vector<std::string> StorageNotes(const Checkpoint& checkpoint);

}  // namespace tensorbundle
