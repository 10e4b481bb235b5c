// SPDX-License-Identifier: Apache-2.0
// Finding the records of a V1 checkpoint whose payload already is what the tensor's elements are:
// float, double and complex values in one packed field of an uncompressed block.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/shard.h"

namespace tensorbundle {

// Turns every slice of which that is true from kRecord to kDense, and points it at its payload.
// Reads the heads of the entries only, and compares no checksum: a damaged or unusual entry just
// stays a kRecord. `shards` are the catalog's files.
void LocateDenseRecords(const std::vector<V1Shard>& shards, const SliceNames& names,
                        Catalog* catalog);

// Where the payload of a kDense slice lies in its shard now, or nothing. `spelled` are its extents.
std::optional<uint64_t> LocateDenseRecord(const V1Shard& shard, const Tensor& tensor,
                                          std::span<const Extent> spelled,
                                          const StoredSlice& slice);

// The same in a record that has been read.
std::optional<uint64_t> LocateDenseRecord(const StoredRecord& record, const Tensor& tensor,
                                          std::span<const Extent> spelled,
                                          const StoredSlice& slice);

}  // namespace tensorbundle
