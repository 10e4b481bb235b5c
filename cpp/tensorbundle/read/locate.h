// SPDX-License-Identifier: Apache-2.0
// Tensors as the memory they are mapped to.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

// Row-major, native-endian elements at whatever alignment the file gives them. `owner` keeps them
// mapped.
struct TensorView {
  std::shared_ptr<const Mapping> owner;
  ByteSpan bytes;
  const char* why_not = nullptr;  // set instead of the others when there can be no view

  explicit operator bool() const { return why_not == nullptr; }
};

// Bytes of one file that are the elements of a box, row-major and native-endian.
struct StoredRun {
  uint32_t file = 0;  // in Catalog::files
  uint64_t offset = 0;
  uint64_t size = 0;
  const char* why_not = nullptr;  // set instead of the others when there is no such run
};

// The tensor's slices in row-major order when each is one run of it and they follow each other
// without a gap in one file: then the stored bytes are the tensor's. Empty when they are not that.
std::vector<const StoredSlice*> ContiguousPieces(const Catalog& catalog, const Tensor& tensor);

// Where a non-empty box lies, if its elements follow each other in one file. Throws as FindOverlaps
// and CheckSlice; UnsupportedError for an unknown type.
StoredRun LocateBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box);

// All of a tensor. Throws as DataFiles::Map and CheckSlice; UnsupportedError for an unknown type.
TensorView ViewTensor(const Checkpoint& checkpoint, const Tensor& tensor);

// One stored slice of it.
TensorView ViewSlice(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice);

// Writable memory over a private mapping of all of a tensor: writes never reach the file. Throws
// also as FindOverlaps, and IOFailure when the system refuses the mapping.
TensorView CopyOnWriteTensor(const Checkpoint& checkpoint, const Tensor& tensor);

// Which bytes of which files a read takes, without reading them.

struct FileRange {
  uint32_t file = 0;  // in Catalog::files
  uint64_t offset = 0;
  uint64_t size = 0;
  bool operator==(const FileRange&) const = default;
};

// Both return ranges in the order of files and offsets, merged where they touch. A slice that must
// be decoded, or whose elements have no fixed size, is taken whole. Both throw CorruptionError for
// holes, overlaps and files that are too short, and as DataFiles::Get.

// Of a box of the tensor.
std::vector<FileRange> RangesOfBox(const Checkpoint& checkpoint, const Tensor& tensor,
                                   const Box& box);

// Of whole rows along axis 0, each of which is inside the tensor; in any order, also repeated.
std::vector<FileRange> RangesOfRows(const Checkpoint& checkpoint, const Tensor& tensor,
                                    std::span<const int64_t> rows);

// What a read of those ranges meets.
struct RangeStats {
  uint64_t num_slices = 0;    // that contain a part of the ranges
  uint64_t num_whole = 0;     // of those, taken whole: their checksums can be compared
  uint64_t num_verified = 0;  // of those, compared before
  uint64_t num_bytes = 0;
  uint64_t num_touched = 0;     // in whole pages
  uint64_t num_probed = 0;      // of those, looked for in the page cache where the system tells
  uint64_t num_resident = 0;    // of those, found there
  bool prefers_direct = false;  // a stream would go past the page cache here
};

// `tensor`'s slices against ranges made by the functions above.
RangeStats InspectRanges(const Checkpoint& checkpoint, const Tensor& tensor,
                         std::span<const FileRange> ranges);

}  // namespace tensorbundle
