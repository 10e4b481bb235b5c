// SPDX-License-Identifier: Apache-2.0
// Opening a V1 checkpoint: one table, or several shards of it, that hold the tensors themselves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"

namespace tensorbundle {

// Opens the files as one checkpoint. Reads no tensor data: the catalog says which pieces are dense
// in their file (float, double and complex values as TensorFlow writes them) and which must be
// decoded. No piece has a checksum of its own: RecordStore::Verify compares that of the block it
// lies in. Throws CorruptionError when a table or its meta is damaged, when the files contradict
// each other or when one is the index of a V2 checkpoint; UnsupportedError for a newer format;
// std::invalid_argument without files; what File::Open throws.
std::shared_ptr<const Checkpoint> OpenV1(const std::vector<std::string>& files, IoMode mode);

}  // namespace tensorbundle
