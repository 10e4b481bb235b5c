// SPDX-License-Identifier: Apache-2.0
// What the slices of a V1 checkpoint are called in their files.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/extent.h"

namespace tensorbundle {

// A slice's key spells its extents as the writer did, a whole axis in one of two ways; the catalog
// has them with whole axes written out. This remembers which they were. A piece without extents of
// its own is spelled as all whole axes.
class SliceNames {
 public:
  // Records how the extents that the catalog got next, as many as `spelled`, were spelled.
  void Append(std::span<const Extent> spelled) {
    for (const Extent& extent : spelled) whole_axis_.push_back(extent.length == kFullLength);
  }

  // The piece's extents as spelled. `extents` are those of the catalog.
  Box Spelled(std::span<const Extent> extents, const Tensor& tensor, const Piece& piece) const;

  // The key of the piece's record.
  std::string Key(std::span<const Extent> extents, const Tensor& tensor, const Piece& piece) const;

 private:
  std::vector<bool> whole_axis_;  // one per extent of the catalog
};

}  // namespace tensorbundle
