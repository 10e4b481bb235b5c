// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/row_copy.h"

#include <cstring>

#include "tensorbundle/base/nontemporal_copy.h"
#include "tensorbundle/read/copy_layout.h"

namespace tensorbundle {
namespace {

// Bytes on their way at once. Fetching into the second-level cache is not limited by the first
// level's few fill buffers; measured with 256-byte rows, 32 ahead were faster than 8 or 16, and 64
// no faster.
constexpr uint64_t kBytesAhead = 8192;

}  // namespace

RowCopier::RowCopier(const RowLayout& bands, unsigned swap_unit, StoreHint hint)
    : bands_(bands),
      row_size_(bands.row_size),
      swap_unit_(swap_unit),
      hint_(hint),
      ahead_(std::clamp<size_t>(kBytesAhead / std::max<uint64_t>(1, bands.row_size), 4, kMaxAhead)),
      recent_(bands.bands.data()) {
  if (bands.bands.size() == 1 && bands.bands[0].segments.size() == 1) {
    base_ = bands.bands[0].segments[0].memory;
    stride_ = bands.bands[0].segments[0].stride;
  }
}

RowCopier::~RowCopier() {
  if (hint_ == StoreHint::kStreaming) FenceNontemporalStores();
}

void RowCopier::CopyWhole(uint8_t* out, const uint8_t* in) const {
  if (hint_ == StoreHint::kStreaming && swap_unit_ == 1) {
    NontemporalCopy(out, in, row_size_);
    return;
  }
  std::memcpy(out, in, row_size_);
  SwapBytes({out, row_size_}, swap_unit_);
}

RowCopier::Found RowCopier::Find(int64_t row) {
  if (row < 0) return {};
  if (row < recent_->begin || row >= recent_->end) {
    const auto next =
        std::upper_bound(bands_.bands.begin(), bands_.bands.end(), row,
                         [](int64_t wanted, const RowGroup& band) { return wanted < band.begin; });
    recent_ = &*(next - 1);
  }
  const Found found{recent_, static_cast<uint64_t>(row - recent_->begin)};
  for (const RowSegment& segment : recent_->segments) {
    if (segment.memory != nullptr) {
      Prefetch(segment.memory + found.row * segment.stride, segment.size);
    }
  }
  return found;
}

void RowCopier::CopyFound(const Found& found, uint8_t* out) const {
  const std::vector<RowSegment>& segments = found.band->segments;
  if (segments.size() == 1 && segments[0].memory != nullptr) {
    CopyWhole(out, segments[0].memory + found.row * segments[0].stride);
    return;
  }
  for (const RowSegment& segment : segments) {
    const uint64_t skip = found.row * segment.stride;
    uint8_t* destination = out + segment.destination;
    if (segment.memory != nullptr) {
      std::memcpy(destination, segment.memory + skip, segment.size);
    } else {
      segment.file->ReadAt(segment.offset + skip, {destination, segment.size});
    }
  }
  SwapBytes({out, row_size_}, swap_unit_);
}

}  // namespace tensorbundle
