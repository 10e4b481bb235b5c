// SPDX-License-Identifier: Apache-2.0
// Where each stored slice of a checkpoint lies, and where it goes.
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
#include "tensorbundle/io/atomic_file.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

// Slices of at least this many bytes go to multiples of the alignment that was asked for, all
// others to multiples of kSmallAlignment.
inline constexpr uint64_t kLargeSlice = 1'000'000;
inline constexpr uint64_t kSmallAlignment = 64;
inline constexpr uint64_t kMaxAlignment = uint64_t{1} << 30;

// A stored slice: a record of the index that has bytes of its own.
struct PlacedSlice {
  size_t record = 0;  // which of the index
  int32_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t num_elements = 0;
  uint32_t masked_checksum = 0;
  bool has_checksum = false;
  Encoding encoding = Encoding::kDense;
  uint64_t new_offset = 0;  // in the same shard

  // Whether the two are the same bytes, to be checked in the same way.
  bool IsSameAs(const PlacedSlice& other) const;
};

// Every slice, by shard and by where it lies. In each shard the slices keep their order; those that
// are the same bytes stay so. `entries` are those of an index that ReadBundleIndex accepts; slice
// records that no tensor lists are checked here. Throws CorruptionError, naming `path`, when a
// record is impossible or the shards would outgrow what a file can have.
std::vector<PlacedSlice> PlaceSlices(const TableEntries& entries, const BundleHeader& header,
                                     uint64_t alignment, const std::string& path);

// Copying the slices of one shard to their new places, and checking them on the way.

struct ShardCopyOptions {
  bool big_endian = false;
  int threads = 1;
  std::function<std::string(const PlacedSlice&)> name_of;  // of a slice, for messages
  std::function<void(uint64_t)> progress;  // called from any thread; may throw to stop
};

// Whether two neighbours in PlaceSlices' order are one slice to copy.
inline bool IsCopiedWith(const PlacedSlice& slice, const PlacedSlice* before) {
  return before != nullptr && slice.IsSameAs(*before);
}

// Throws CorruptionError, naming the slice, when one does not lie inside `source`.
void CheckInside(const File& source, std::span<const PlacedSlice> slices,
                 const ShardCopyOptions& options);

// Copies slices that lie inside `source` to `out`, which has been made as long as they need. Every
// byte is read once; memory is a chunk per thread. Throws CorruptionError, naming the slice, when
// its bytes do not have the checksum that its record stores or no checksum is stored; as
// File::ReadAt and AtomicFile::WriteAt.
void CopySlices(const File& source, std::span<const PlacedSlice> slices, const AtomicFile& out,
                const ShardCopyOptions& options);

// A V2 checkpoint written anew, the same in everything but where the bytes lie.

struct AlignSummary {
  uint64_t slices = 0;        // stored slices, those of partitioned tensors one by one
  uint64_t moved = 0;         // of which now lie at another offset
  uint64_t bytes_before = 0;  // in the data files
  uint64_t bytes_after = 0;
};

// What it takes to align a checkpoint. The index's bytes are those found when it was made.
class AlignPlan {
 public:
  // Reads the index of `source`, a prefix. `alignment` is a power of two from kSmallAlignment to
  // kMaxAlignment, else std::invalid_argument. Throws as ReadBundleIndex and PlaceSlices.
  AlignPlan(std::string source, uint64_t alignment);
  AlignPlan(const AlignPlan&) = delete;  // a copy's shards would show the original's slices
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
  using Shard = std::span<const PlacedSlice>;  // all that lies in one, never empty

  std::unique_ptr<AtomicFile> CopyShard(const Shard& shard, const std::string& destination,
                                        const ShardCopyOptions& options) const;
  std::unique_ptr<AtomicFile> WriteIndex(const std::string& destination) const;
  std::shared_ptr<const File> OpenShard(const Shard& shard) const;
  std::string ShardPath(const std::string& prefix, int32_t shard) const;
  std::string NameOf(const PlacedSlice& slice) const;
  void CheckFree(const std::string& destination) const;

  std::string source_;
  std::string index_path_;
  Catalog catalog_;  // for the names in messages
  TableEntries entries_;
  BundleHeader header_;
  std::vector<PlacedSlice> slices_;
  std::vector<Shard> shards_;  // of slices_
  uint64_t bytes_to_copy_ = 0;
};

}  // namespace tensorbundle
