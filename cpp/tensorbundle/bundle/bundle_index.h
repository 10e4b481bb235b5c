// SPDX-License-Identifier: Apache-2.0
// The index of a V2 checkpoint, read once and checked whole.
#pragma once

#include <memory>
#include <string>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/io/byte_source.h"

namespace tensorbundle {

struct BundleIndex {
  Catalog catalog;
  uint32_t checksum = 0;  // CRC32C of the index file: tells one save from the next
};

// Reads `<prefix>.index`. The data files are named in the result but not looked at. Memory is
// bounded by a small multiple of the index file's size, which may be 1 GiB at most. Throws
// CorruptionError for any fault in any record, so that nothing has to be checked later;
// UnsupportedError for a newer format; what File::Open throws.
BundleIndex ReadBundleIndex(const std::string& prefix);

// The same from bytes that are already in memory.
BundleIndex ReadBundleIndex(const std::string& prefix, std::shared_ptr<const MemorySource> index);

// `<prefix>.index`, read into memory for the function above and for whoever wants its records.
// Throws as ReadBundleIndex.
std::shared_ptr<const MemorySource> LoadIndexFile(const std::string& prefix);

// "<prefix>.data-00000-of-00001"
std::string DataFilePath(const std::string& prefix, int32_t shard, int32_t num_shards);

}  // namespace tensorbundle
