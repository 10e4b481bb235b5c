// SPDX-License-Identifier: Apache-2.0
// The catalog of a V1 checkpoint, merged from the metas of all its files.
#pragma once

#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/shard.h"

namespace tensorbundle {

struct V1Catalog {
  // Its files are the shards. Every slice is a kRecord, at the block that would hold it.
  Catalog catalog;
  SliceEncodings encodings;
};

// Reads the meta of every shard, and no records except those in the same block. Does not check that
// the records exist. Memory: a small multiple of the blocks with the metas.
// Throws: CorruptionError if a meta is malformed or impossible, if two metas disagree about a
// tensor, or if a slice is listed twice; UnsupportedError for a newer format; IOFailure.
V1Catalog ReadV1Catalog(const std::vector<V1Shard>& shards);

}  // namespace tensorbundle
