// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/copy_layout.h"

#include <algorithm>
#include <cstring>

namespace tensorbundle {

CopyLayout::CopyLayout(std::span<const Extent> source, std::span<const Extent> destination,
                       std::span<const Extent> intersection, uint64_t item_size)
    : span_size_(item_size) {
  uint64_t source_stride = item_size;
  uint64_t destination_stride = item_size;
  bool in_span = true;  // the axes so far, innermost first, are whole on both sides
  for (size_t axis = intersection.size(); axis-- > 0;) {
    const auto length = static_cast<uint64_t>(intersection[axis].length);
    first_.source +=
        static_cast<uint64_t>(intersection[axis].start - source[axis].start) * source_stride;
    first_.destination +=
        static_cast<uint64_t>(intersection[axis].start - destination[axis].start) *
        destination_stride;
    if (in_span) {
      span_size_ *= length;
    } else if (length > 1) {
      axes_.push_back({length, source_stride, destination_stride});
      count_ *= length;
    }
    in_span &= intersection[axis].length == source[axis].length &&
               intersection[axis].length == destination[axis].length;
    source_stride *= static_cast<uint64_t>(source[axis].length);
    destination_stride *= static_cast<uint64_t>(destination[axis].length);
  }
  std::reverse(axes_.begin(), axes_.end());
}

bool CopyLayout::has_contiguous_source() const {
  uint64_t size = span_size_;
  for (size_t axis = axes_.size(); axis-- > 0;) {
    if (axes_[axis].source_stride != size) return false;
    size *= axes_[axis].length;
  }
  return true;
}

CopyLayout::Span CopyLayout::Seek(uint64_t index, std::vector<uint64_t>* position) const {
  Span span = first_;
  for (size_t axis = axes_.size(); axis-- > 0;) {
    (*position)[axis] = index % axes_[axis].length;
    index /= axes_[axis].length;
    span.source += (*position)[axis] * axes_[axis].source_stride;
    span.destination += (*position)[axis] * axes_[axis].destination_stride;
  }
  return span;
}

void CopyLayout::Advance(std::vector<uint64_t>* position, Span* span) const {
  for (size_t axis = axes_.size(); axis-- > 0;) {
    const Axis& a = axes_[axis];
    span->source += a.source_stride;
    span->destination += a.destination_stride;
    if (++(*position)[axis] < a.length) return;
    span->source -= a.length * a.source_stride;
    span->destination -= a.length * a.destination_stride;
    (*position)[axis] = 0;
  }
}

namespace {

uint16_t Swap(uint16_t value) { return __builtin_bswap16(value); }
uint32_t Swap(uint32_t value) { return __builtin_bswap32(value); }
uint64_t Swap(uint64_t value) { return __builtin_bswap64(value); }

template <typename Word>
void SwapWords(MutableByteSpan bytes) {
  for (size_t i = 0; i + sizeof(Word) <= bytes.size(); i += sizeof(Word)) {
    Word word;
    std::memcpy(&word, bytes.data() + i, sizeof(word));
    word = Swap(word);
    std::memcpy(bytes.data() + i, &word, sizeof(word));
  }
}

}  // namespace

void SwapBytes(MutableByteSpan bytes, unsigned unit) {
  if (unit == 2) SwapWords<uint16_t>(bytes);
  if (unit == 4) SwapWords<uint32_t>(bytes);
  if (unit == 8) SwapWords<uint64_t>(bytes);
}

}  // namespace tensorbundle
