// SPDX-License-Identifier: Apache-2.0
// A V2 checkpoint written anew, the same in everything but where the bytes lie.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/header.h"
#include "tensorbundle/io/atomic_file.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/rewrite/placement.h"
#include "tensorbundle/rewrite/shard_copy.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

struct AlignSummary {
  uint64_t pieces = 0;        // stored pieces, those of partitioned tensors one by one
  uint64_t moved = 0;         // of which now lie at another offset
  uint64_t bytes_before = 0;  // in the data files
  uint64_t bytes_after = 0;
};

// What it takes to align a checkpoint. The index's bytes are those found when it was made.
class AlignPlan {
 public:
  // Reads the index of `source`, a prefix. `alignment` is a power of two from kSmallAlignment to
  // kMaxAlignment, else std::invalid_argument. Throws as ReadBundleIndex and PlacePieces.
  AlignPlan(std::string source, uint64_t alignment);
  AlignPlan(const AlignPlan&) = delete;  // a copy's shards would show the original's pieces
  AlignPlan& operator=(const AlignPlan&) = delete;

  // How many bytes have to be copied.
  uint64_t bytes_to_copy() const { return bytes_to_copy_; }

  // Writes the checkpoint `destination`, with as many shards as the source has and each tensor in
  // the same one; shards that hold nothing are left out. Its directory is made when only that is
  // missing. Everything is checked, brought to the disk and only then given its name, the index
  // last: a process that dies leaves no checkpoint there, or this one whole. What was written is
  // removed when anything is thrown: std::invalid_argument when the destination is the source;
  // IOFailure when a file of that name is there (EEXIST) or the system fails; CorruptionError,
  // naming the tensor, when stored bytes are damaged; UnsupportedError when tensors overlap and are
  // larger together than their file; CheckpointNotFoundError when a shard is missing; what
  // `progress` throws, which is called with bytes just copied, from any thread.
  AlignSummary Write(const std::string& destination, int threads,
                     const std::function<void(uint64_t)>& progress) const;

 private:
  using Shard = std::span<const PlacedPiece>;  // all that lies in one, never empty

  std::unique_ptr<AtomicFile> CopyShard(const Shard& shard, const std::string& destination,
                                        const ShardCopyOptions& options) const;
  std::unique_ptr<AtomicFile> WriteIndex(const std::string& destination) const;
  std::shared_ptr<const File> OpenShard(const Shard& shard) const;
  std::string ShardPath(const std::string& prefix, int32_t shard) const;
  std::string NameOf(const PlacedPiece& piece) const;
  void CheckFree(const std::string& destination) const;

  std::string source_;
  std::string index_path_;
  Catalog catalog_;  // for the names in messages
  TableEntries entries_;
  BundleHeader header_;
  std::vector<PlacedPiece> pieces_;
  std::vector<Shard> shards_;  // of pieces_
  uint64_t bytes_to_copy_ = 0;
};

}  // namespace tensorbundle
