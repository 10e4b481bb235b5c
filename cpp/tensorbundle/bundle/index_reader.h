// SPDX-License-Identifier: Apache-2.0
// The index of a V2 checkpoint, read once and checked whole.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/data_files.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

struct BundleIndex {
  Catalog catalog;
  uint32_t checksum = 0;          // of all records: tells one save from the next
  std::optional<IndexFile> file;  // where it was read from, if that was a file
};

// The index was rewritten while it was read: whoever catches this may read it again.
class IndexReplacedError : public CorruptionError {
  using CorruptionError::CorruptionError;
};

// Reads `<prefix>.index`, a block at a time. The data files are named in the result but not looked
// at. Memory is bounded by a small multiple of the index file's size, which may be 1 GiB at most.
// Throws CorruptionError for any fault in any record, so that nothing has to be checked later;
// UnsupportedError for a newer format; what File::Open throws; IndexReplacedError.
BundleIndex ReadBundleIndex(const std::string& prefix);

// The same from an index that is open already, or in memory.
BundleIndex ReadBundleIndex(const std::string& prefix, std::shared_ptr<const ByteSource> index);

// `<prefix>.index`, open. Throws UnsupportedError when it is too large; what File::Open throws.
std::shared_ptr<const File> OpenIndexFile(const std::string& prefix);

// "<prefix>.data-00000-of-00001"
std::string DataFilePath(const std::string& prefix, int32_t shard, int32_t num_shards);

}  // namespace tensorbundle
