// SPDX-License-Identifier: Apache-2.0
// A one-pass reader of the index of a V2 checkpoint that checks every record.
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
  uint32_t checksum = 0;          // of all records; it differs between saves
  std::optional<IndexFile> file;  // the file that was read, if any
};

// The index was rewritten while it was read. The caller may read it again.
class IndexReplacedError : public CorruptionError {
  using CorruptionError::CorruptionError;
};

// Reads `<prefix>.index`, a block at a time. Names the data files, but does not open them. Memory:
// a small multiple of the size of the index file, which is at most 1 GiB. Throws: CorruptionError
// for any error in any record, so that nothing has to be checked later; UnsupportedError for a
// newer format or a larger file; IndexReplacedError; CheckpointNotFoundError; IOFailure.
BundleIndex ReadBundleIndex(const std::string& prefix);

// As above, from an open file or from memory.
BundleIndex ReadBundleIndex(const std::string& prefix, std::shared_ptr<const ByteSource> index);

// Opens `<prefix>.index`.
// Throws: UnsupportedError if it is too large; what `opener` throws.
std::shared_ptr<const File> OpenIndexFile(const std::string& prefix,
                                          const FileOpener& opener = nullptr);

// Returns "<prefix>.data-00000-of-00001".
std::string DataFilePath(const std::string& prefix, int32_t shard, int32_t num_shards);

}  // namespace tensorbundle
