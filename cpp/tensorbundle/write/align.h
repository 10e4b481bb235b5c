// SPDX-License-Identifier: Apache-2.0
// An aligned copy of a V2 checkpoint: the same tensors in the same shards, with each large stored
// slice at a multiple of the alignment.
//
//   plan:  read the index once, and assign a new offset to every stored slice, in file order
//   write: copy the slices of each shard and compare their checksums; publish (BundleWriter)
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/table/table.h"
#include "tensorbundle/write/bundle_writer.h"

namespace tensorbundle {

struct AlignSummary {
  uint64_t slices = 0;        // stored slices; each slice of a partitioned tensor counts
  uint64_t moved = 0;         // slices that have another offset now
  uint64_t bytes_before = 0;  // of the data files
  uint64_t bytes_after = 0;
};

// A stored slice, its record in the index, and its new offset in the same shard.
struct PlacedSlice {
  size_t record = 0;  // the number of the entry in the index
  int32_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t num_elements = 0;
  uint32_t masked_checksum = 0;
  bool has_checksum = false;
  Encoding encoding = Encoding::kDense;
  uint64_t new_offset = 0;
};

// The plan for an aligned copy. It is based on the index at construction.
class AlignPlan {
 public:
  // Reads the index of the checkpoint with the prefix `source`.
  // Throws: std::invalid_argument unless `alignment` is a power of two in [kSmallAlignment,
  // kMaxAlignment]; CorruptionError if a record is impossible or a new shard would exceed 2^63 - 1
  // bytes; as ReadBundleIndex.
  AlignPlan(std::string source, uint64_t alignment);
  AlignPlan(const AlignPlan&) = delete;  // the shards of a copy would refer to the original
  AlignPlan& operator=(const AlignPlan&) = delete;

  // The number of bytes to copy.
  uint64_t bytes_to_copy() const { return bytes_to_copy_; }

  // Writes the checkpoint with the prefix `destination`. Each tensor stays in its shard; shards
  // without slices are omitted. Creates the directory if its parent exists. All files are verified
  // and synced before they get their names, the index last: if the process dies, there is either no
  // index or the complete checkpoint. Removes all of it if anything is thrown. Calls `progress`
  // from any thread with the number of bytes just copied. Throws: std::invalid_argument if the
  // destination is the source; IOFailure, with EEXIST if a file exists; CorruptionError if the
  // bytes of a tensor do not have the checksum in the index; UnsupportedError if overlapping
  // tensors would make a file larger; CheckpointNotFoundError if a shard is missing; what
  // `progress` throws.
  AlignSummary Write(const std::string& destination, int threads,
                     const std::function<void(uint64_t)>& progress) const;

 private:
  using Shard = std::span<const PlacedSlice>;  // all slices of one shard, never empty

  void CopyShard(const Shard& shard, BundleWriter* writer, const WriteProgress& progress) const;
  void PutRecords(BundleWriter* writer) const;
  std::shared_ptr<const File> OpenShard(const Shard& shard) const;
  std::string ShardPath(const std::string& prefix, int32_t shard) const;
  std::string NameOf(const PlacedSlice& slice) const;

  std::string source_;
  std::string index_path_;
  Catalog catalog_;  // for the names in messages
  TableEntries entries_;
  BundleHeader header_;
  std::vector<PlacedSlice> slices_;  // by shard and offset
  std::vector<Shard> shards_;        // of slices_
  uint64_t bytes_to_copy_ = 0;
};

}  // namespace tensorbundle
