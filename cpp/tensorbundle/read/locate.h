// SPDX-License-Identifier: Apache-2.0
// Locations of elements: in which bytes of which files they are stored, whether those bytes can be
// used as they are, as a view or a mapping, and what a read of them costs.
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

// Bytes of a file.
struct FileRange {
  uint32_t file = 0;  // in Catalog::files
  uint64_t offset = 0;
  uint64_t size = 0;
  bool operator==(const FileRange&) const = default;
};

// Why elements are not stored as one range of row-major, native-endian bytes, or cannot be mapped.
enum class NoViewReason : uint8_t {
  kNone,  // they are, and can
  kVariableSize,
  kBigEndian,
  kEncoded,    // decoding gives the elements
  kStrided,    // the stored rows are longer than those of the box
  kScattered,  // several ranges, in another order, or with holes
  kNotMapped,  // the I/O mode does not map
  kRemote      // the files are in another file system
};

// Returns "its elements have no fixed size" and the like, for messages; "" for kNone.
const char* ToString(NoViewReason reason);

// The range of a file that holds a box, if `reason` is kNone.
struct BoxLocation {
  FileRange range;
  NoViewReason reason = NoViewReason::kNone;

  explicit operator bool() const { return reason == NoViewReason::kNone; }
};

// Finds the range that is all of a non-empty box, by the catalog alone: does not check files. Boxes
// with holes and overlaps are kScattered. Throws UnsupportedError for an unknown type.
BoxLocation FindFileRange(const Catalog& catalog, const Tensor& tensor, const Box& box);

// The same, and checks that the bytes may be read. Throws what FindOverlaps() and RequireReadable()
// throw; UnsupportedError for an unknown type.
BoxLocation LocateBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box);

// Views.

// Row-major, native-endian elements in mapped memory, not aligned. Valid if `reason` is kNone.
// Lifetime: `owner` keeps the memory mapped.
struct TensorView {
  std::shared_ptr<const Mapping> owner;
  ByteSpan bytes;
  NoViewReason reason = NoViewReason::kNone;

  explicit operator bool() const { return reason == NoViewReason::kNone; }
};

// Returns a view of the whole tensor. Throws what RequireReadable() and DataFiles::MapForViews
// throw; UnsupportedError for an unknown type.
TensorView ViewTensor(const Checkpoint& checkpoint, const Tensor& tensor);

// The same for one stored slice.
TensorView ViewSlice(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice);

// The same for a writable private mapping of the whole tensor: writes never reach the file. Throws
// also what FindOverlaps() throws, and IOFailure if the system refuses the mapping.
TensorView CopyOnWriteTensor(const Checkpoint& checkpoint, const Tensor& tensor);

// The same for one stored slice. Throws what ViewSlice() throws, and IOFailure as above.
TensorView CopyOnWriteSlice(const Checkpoint& checkpoint, const Tensor& tensor,
                            const StoredSlice& slice);

// The bytes that a read takes, without reading them.

// Returns the ranges of a box, ascending and merged where they touch. Slices that must be decoded,
// and slices of elements without a fixed size, are included whole. Throws CorruptionError for
// holes, overlaps and short files; what DataFiles::Get throws.
std::vector<FileRange> RangesOfBox(const Checkpoint& checkpoint, const Tensor& tensor,
                                   const Box& box);

// The same for whole rows along axis 0, in any order, with repetitions.
// Requires: the tensor has the rows.
std::vector<FileRange> RangesOfRows(const Checkpoint& checkpoint, const Tensor& tensor,
                                    std::span<const int64_t> rows);

// What a read of ranges costs.
struct RangeStats {
  uint64_t num_slices = 0;    // that intersect the ranges
  uint64_t num_whole = 0;     // of those, inside the ranges: their checksums can be compared
  uint64_t num_verified = 0;  // of those, verified before
  uint64_t num_bytes = 0;
  uint64_t num_touched = 0;     // bytes of whole pages
  uint64_t num_probed = 0;      // of those, looked up in the page cache, where the system allows it
  uint64_t num_resident = 0;    // of those, found in the page cache
  bool prefers_direct = false;  // a stream would use direct I/O
};

// Requires: RangesOfBox() or RangesOfRows() returned the ranges for this tensor.
RangeStats InspectRanges(const Checkpoint& checkpoint, const Tensor& tensor,
                         std::span<const FileRange> ranges);

}  // namespace tensorbundle
