// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/row_readahead.h"

#include <algorithm>
#include <tuple>

#include "tensorbundle/io/page_cache.h"

namespace tensorbundle {
namespace {

// Whether the segment is mapped, so that accessing it waits for the page cache.
bool IsMapped(const RowSegment& segment) {
  return segment.memory != nullptr && segment.file != nullptr;
}

}  // namespace

bool RowReadahead::IsMissing(const RowLayout& layout, int64_t row) {
  const RowGroup& group = layout.At(row);
  if (group.segments.empty() || !IsMapped(group.segments[0])) return false;
  const RowSegment& first = group.segments[0];
  return IsMissingFromCache(*first.file,
                            first.offset + static_cast<uint64_t>(row - group.begin) * first.stride);
}

void RowReadahead::Add(int64_t row) {
  const RowGroup& group = layout_.At(row);
  for (const RowSegment& segment : group.segments) {
    if (!IsMapped(segment)) continue;
    const uint64_t begin =
        segment.offset + static_cast<uint64_t>(row - group.begin) * segment.stride;
    ranges_.push_back({segment.file, begin, begin + segment.size});
  }
}

void RowReadahead::Start() {
  std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) {
    return std::tie(a.file, a.begin) < std::tie(b.file, b.begin);
  });
  for (auto first = ranges_.begin(); first != ranges_.end();) {
    Range joined = *first++;
    for (; first != ranges_.end() && first->file == joined.file; ++first) {
      if (first->begin > joined.end + kMaxReadaheadGap) break;
      joined.end = std::max(joined.end, first->end);
    }
    StartReading(*joined.file, joined.begin, joined.end - joined.begin);
  }
  ranges_.clear();
}

}  // namespace tensorbundle
