// SPDX-License-Identifier: Apache-2.0
// The metas of all files of a V1 checkpoint, merged into one catalog.
#pragma once

#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/shard.h"

namespace tensorbundle {

struct V1Catalog {
  Catalog catalog;  // its files are the shards; every slice is a kRecord, at the block that would
                    // hold it
  SliceNames names;
};

// Reads the meta of every shard, and no data but what shares a block with a meta. Memory is bounded
// by a small multiple of the metas and the blocks that they begin. Throws CorruptionError when a
// meta is malformed or impossible, when two disagree about a tensor, and when a slice is listed
// twice; UnsupportedError for a newer format. Whether the records are there is left to those who
// read them.
V1Catalog ReadV1Catalog(const std::vector<V1Shard>& shards);

}  // namespace tensorbundle
