// SPDX-License-Identifier: Apache-2.0
// Which bytes of which files a read takes, without reading them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/extent.h"

namespace tensorbundle {

struct FileRange {
  uint32_t file = 0;  // in Catalog::files
  uint64_t offset = 0;
  uint64_t size = 0;
  bool operator==(const FileRange&) const = default;
};

// Both return ranges in the order of files and offsets, merged where they touch. A piece that must
// be decoded, or whose elements have no fixed size, is taken whole. Both throw CorruptionError for
// holes, overlaps and files that are too short, and as DataFiles::Get.

// Of a box of the tensor.
std::vector<FileRange> RangesOfBox(const Checkpoint& checkpoint, const Tensor& tensor,
                                   const Box& box);

// Of whole rows along axis 0, each of which is inside the tensor; in any order, also repeated.
std::vector<FileRange> RangesOfRows(const Checkpoint& checkpoint, const Tensor& tensor,
                                    std::span<const int64_t> rows);

// What a read of those ranges meets.
struct RangeFacts {
  uint64_t num_pieces = 0;    // that the ranges lie in
  uint64_t num_whole = 0;     // of those, taken whole: their checksums can be compared
  uint64_t num_verified = 0;  // of those, compared before
  uint64_t num_bytes = 0;
  uint64_t num_touched = 0;     // in whole pages
  uint64_t num_probed = 0;      // of those, looked for in the page cache where the system tells
  uint64_t num_resident = 0;    // of those, found there
  bool prefers_direct = false;  // a stream would go past the page cache here
};

// `tensor`'s pieces against ranges made by the functions above.
RangeFacts InspectRanges(const Checkpoint& checkpoint, const Tensor& tensor,
                         std::span<const FileRange> ranges);

}  // namespace tensorbundle
