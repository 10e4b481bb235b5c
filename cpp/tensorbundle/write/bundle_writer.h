// SPDX-License-Identifier: Apache-2.0
// A writer of V2 checkpoints that streams: stored slices go to the data files as they come, and the
// index is built at the end.
//
//   Allocate   reserves the bytes of one stored slice in a shard
//   Write      writes bytes of it, and returns their checksum; or CopySlices() copies it
//   Record     adds the slice to the index
//   Publish    gives all files their names (write/checkpoint_files.h)
//
// Small writes are collected in a buffer per shard; large ones are checksummed and written by all
// threads. Memory: the buffers, one chunk per thread, and the records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/write/checkpoint_files.h"
#include "tensorbundle/write/slice_copier.h"

namespace tensorbundle {

// Slices of at least kLargeSlice bytes are aligned to the requested alignment, all others to at
// most kSmallAlignment.
inline constexpr uint64_t kLargeSlice = 1'000'000;
inline constexpr uint64_t kSmallAlignment = 64;
inline constexpr uint64_t kMaxAlignment = uint64_t{1} << 30;
inline constexpr auto kMaxFileSize = static_cast<uint64_t>(INT64_MAX);

// Returns the smallest possible offset, at or after `end`, of a slice of `size` bytes.
// Requires: `alignment` is a power of two, at most kMaxAlignment.
uint64_t AlignedOffset(uint64_t end, uint64_t size, uint64_t alignment);

struct BundleWriterOptions {
  int32_t num_shards = 1;
  uint64_t alignment = kSmallAlignment;
  bool overwrite = false;
  int threads = 1;
};

// The place of a stored slice.
struct Placement {
  int32_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t padding = 0;  // bytes before it that no slice uses
};

// The tensor that a slice belongs to, and its box.
struct SliceInfo {
  std::string name;
  DataType dtype = DataType::kInvalid;
  std::vector<int64_t> dims;
  std::optional<Box> box;  // nothing: the whole tensor
};

// Writes the stored slices of one checkpoint. A name that was reserved must be recorded before
// Publish(): a caller whose slice fails gives the whole checkpoint up. Threads: thread-safe, except
// Publish().
class BundleWriter {
 public:
  // Throws: std::invalid_argument unless the alignment is a power of two from 1 to kMaxAlignment
  // and the number of shards is from 1 to kMaxShards; as CheckpointFiles.
  BundleWriter(std::string prefix, const BundleWriterOptions& options);

  // Reserves the tensor's name, or one more slice of a tensor with slices. Throws:
  // std::invalid_argument if the name is empty or taken, or if the slices of a tensor differ in
  // type or shape.
  void Reserve(const SliceInfo& info);

  // Places a slice in a shard; by default in the smallest one. Throws: IOFailure with EFBIG if the
  // file would exceed kMaxFileSize.
  Placement Allocate(uint64_t size);
  Placement Allocate(int32_t shard, uint64_t size);

  // Creates the file of a shard, and takes its space on the disk if that is known.
  void CreateDataFile(int32_t shard, uint64_t size = 0);

  // Syncs and closes the file of a shard, which Publish() does for all others. Thousands of shards
  // need it: the number of open files is limited. Requires: nothing is written to it afterwards.
  void FinishDataFile(int32_t shard);

  // Writes bytes at a position in a slice. Returns their CRC32C. Throws: IOFailure.
  uint32_t Write(const Placement& place, uint64_t start, ByteSpan bytes);

  // Returns the data file of a shard, for CopySlices(). Creates it at the first call.
  const OutputFile& DataFile(int32_t shard);

  int threads() const { return options_.threads; }

  // Adds a slice to the index. Requires: Reserve().
  void Record(const SliceInfo& info, const Placement& place, uint32_t masked_checksum);

  // Adds a record that was encoded elsewhere. Replaces the record of that key.
  void PutRecord(std::string key, std::string record);

  // Publishes the checkpoint. Requires: nothing is called afterwards. Throws: IOFailure;
  // std::invalid_argument if a reserved tensor was not recorded.
  void Publish();

 private:
  struct TensorRecord {
    BundleEntry entry;
    bool is_sliced = false;
    bool is_complete = false;  // an entry of slices has one at least
  };

  struct Shard {
    AtomicFile* file = nullptr;
    uint64_t end = 0;         // of the last slice
    uint64_t tail_start = 0;  // of the buffered bytes
    std::vector<uint8_t> tail;
    uint64_t since_writeback = 0;
  };

  Placement AllocateIn(int32_t number, uint64_t size);
  AtomicFile& FileOf(int32_t number);
  void Buffer(const Placement& place, uint64_t start, ByteSpan bytes);
  void FlushTail(Shard* shard);
  static void CountWritten(Shard* shard, uint64_t bytes);
  std::string BuildIndex(int32_t num_shards) const;

  const BundleWriterOptions options_;
  CheckpointFiles files_;
  std::mutex mutex_;  // guards the members below
  std::vector<Shard> shards_;
  std::map<std::string, TensorRecord, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> records_;  // encoded
};

// A tensor to be copied from a checkpoint, and its new name.
struct TensorCopy {
  std::shared_ptr<const Checkpoint> checkpoint;
  const Tensor* tensor = nullptr;
  std::string name;
};

// Copies tensors with their stored slices and checksums. Requires: CanCopySlices().
// Throws: as BundleWriter::Reserve, CopyOf() and CopySlices().
void CopyTensors(BundleWriter* writer, std::span<const TensorCopy> tensors,
                 const WriteProgress& progress);

}  // namespace tensorbundle
