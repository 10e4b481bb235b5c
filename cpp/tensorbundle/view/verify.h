// SPDX-License-Identifier: Apache-2.0
// Comparing checksums of everything that is stored.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"

namespace tensorbundle {

// A piece that cannot be trusted, and why.
struct Damage {
  size_t tensor;  // index in the catalog
  const Piece* piece;
  std::string message;
};

// Reads every byte of the tensors, in file order and by threads, and compares. Missing and short
// files are damage like any other; only a failure that has nothing to do with the checkpoint is
// thrown. `progress` is called from any thread with the number of bytes just done; what it throws
// stops the work and comes out.
std::vector<Damage> VerifyTensors(const Checkpoint& checkpoint, std::span<const size_t> tensors,
                                  int threads, const std::function<void(uint64_t)>& progress);

}  // namespace tensorbundle
