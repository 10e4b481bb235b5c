// SPDX-License-Identifier: Apache-2.0
// Copies of stored slices to any position of any file, on several threads, in chunks that stay in
// the cache. Every byte is read once: its chunk is checksummed and written before the next one is
// read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/io/atomic_file.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

// Bounds the memory of a copy or a write: each thread has one chunk.
inline constexpr int kMaxCopyThreads = 32;

// A slice to be copied from a file with the checksum in its record.
struct SliceCopy {
  std::shared_ptr<const File> source;
  uint64_t offset = 0;
  uint64_t size = 0;
  Encoding encoding = Encoding::kDense;
  uint64_t num_elements = 0;
  bool big_endian = false;
  bool has_checksum = false;
  uint32_t masked_checksum = 0;
  std::function<std::string()> describe;  // the name of the slice in messages
  const OutputFile* to = nullptr;
  uint64_t to_offset = 0;
};

// Called from any thread with the number of bytes just written; may throw to stop.
using WriteProgress = std::function<void(uint64_t)>;

// Whether the slices of a checkpoint can be copied: a V2 checkpoint in little-endian byte order.
bool CanCopySlices(const Checkpoint& checkpoint);

// Returns the copy of a slice, without its destination. Lifetime: that of the checkpoint.
// Requires: CanCopySlices(). Throws: as Checkpoint::CheckSlice and DataFiles::Get.
SliceCopy CopyOf(const std::shared_ptr<const Checkpoint>& checkpoint, const Tensor& tensor,
                 const StoredSlice& slice);

// Returns where each stored slice of a tensor starts in the bytes of its elements in row-major
// order. Returns nothing unless the slices are dense ranges of rows that have every row once.
std::optional<std::vector<uint64_t>> RowRangeOffsets(const Catalog& catalog, const Tensor& tensor);

// Throws: CorruptionError if a slice does not have the checksum in its record, or if the record
// has no checksum; IOFailure; what `progress` throws.
void CopySlices(std::span<const SliceCopy> slices, int threads, const WriteProgress& progress);

}  // namespace tensorbundle
