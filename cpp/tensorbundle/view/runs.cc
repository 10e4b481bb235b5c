// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/runs.h"

#include <algorithm>

namespace tensorbundle {

RunLayout::RunLayout(std::span<const Extent> source, std::span<const Extent> destination,
                     std::span<const Extent> common, uint64_t item_size)
    : run_size_(item_size) {
  uint64_t source_stride = item_size;
  uint64_t destination_stride = item_size;
  bool in_run = true;  // the axes so far, innermost first, are whole on both sides
  for (size_t axis = common.size(); axis-- > 0;) {
    const auto length = static_cast<uint64_t>(common[axis].length);
    origin_.source +=
        static_cast<uint64_t>(common[axis].start - source[axis].start) * source_stride;
    origin_.destination +=
        static_cast<uint64_t>(common[axis].start - destination[axis].start) * destination_stride;
    if (in_run) {
      run_size_ *= length;
    } else if (length > 1) {
      axes_.push_back({length, source_stride, destination_stride});
      count_ *= length;
    }
    in_run &= common[axis].length == source[axis].length &&
              common[axis].length == destination[axis].length;
    source_stride *= static_cast<uint64_t>(source[axis].length);
    destination_stride *= static_cast<uint64_t>(destination[axis].length);
  }
  std::reverse(axes_.begin(), axes_.end());
}

bool RunLayout::contiguous_source() const {
  uint64_t size = run_size_;
  for (size_t axis = axes_.size(); axis-- > 0;) {
    if (axes_[axis].source_stride != size) return false;
    size *= axes_[axis].length;
  }
  return true;
}

RunLayout::Run RunLayout::Seek(uint64_t index, std::vector<uint64_t>* position) const {
  Run run = origin_;
  for (size_t axis = axes_.size(); axis-- > 0;) {
    (*position)[axis] = index % axes_[axis].length;
    index /= axes_[axis].length;
    run.source += (*position)[axis] * axes_[axis].source_stride;
    run.destination += (*position)[axis] * axes_[axis].destination_stride;
  }
  return run;
}

void RunLayout::Advance(std::vector<uint64_t>* position, Run* run) const {
  for (size_t axis = axes_.size(); axis-- > 0;) {
    const Axis& a = axes_[axis];
    run->source += a.source_stride;
    run->destination += a.destination_stride;
    if (++(*position)[axis] < a.length) return;
    run->source -= a.length * a.source_stride;
    run->destination -= a.length * a.destination_stride;
    (*position)[axis] = 0;
  }
}

}  // namespace tensorbundle
