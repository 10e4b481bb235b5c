// SPDX-License-Identifier: Apache-2.0
// The records of a V1 checkpoint whose payload is the dense elements of the tensor: float, double
// and complex values in one packed field of an uncompressed block.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/shard.h"

namespace tensorbundle {

// Changes the encoding of every such slice from kRecord to kDense, and sets its offset and size to
// those of the payload. Reads only the heads of the entries, and compares no checksum: a corrupted
// or unusual entry stays a kRecord. `shards` are the files of the catalog. Throws: IOFailure.
void LocateDenseRecords(const std::vector<V1Shard>& shards, const SliceEncodings& encodings,
                        Catalog* catalog);

// Returns the offset of the payload of a kDense slice in its shard, or nothing if the record is no
// longer dense.
std::optional<uint64_t> LocateDenseRecord(const V1Shard& shard, const Tensor& tensor,
                                          EncodedSlice encoded, const StoredSlice& slice);

// As above, in a record that has been read.
std::optional<uint64_t> LocateDenseRecord(const StoredRecord& record, const Tensor& tensor,
                                          EncodedSlice encoded, const StoredSlice& slice);

}  // namespace tensorbundle
