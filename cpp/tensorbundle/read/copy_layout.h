// SPDX-License-Identifier: Apache-2.0
// Contiguous spans that copy a box between two row-major arrays, as in a NumPy or HDF5 selection.
// The innermost axes that are whole on both sides form one span; the outer axes repeat it at two
// strides, one in the source and one in the destination.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// count() spans of span_size() bytes each, in row-major order of the box. Immutable.
class CopyLayout {
 public:
  // `source` and `destination` are the boxes of the two arrays in one tensor.
  // Requires: `intersection` is inside both and not empty.
  CopyLayout(std::span<const Extent> source, std::span<const Extent> destination,
             std::span<const Extent> intersection, uint64_t item_size);

  // Byte offsets of one span in the two arrays.
  struct Span {
    uint64_t source = 0;
    uint64_t destination = 0;
  };

  uint64_t span_size() const { return span_size_; }
  uint64_t count() const { return count_; }
  uint64_t size() const { return span_size_ * count_; }
  const Span& first() const { return first_; }

  Span At(uint64_t index) const {
    std::vector<uint64_t> position(axes_.size());
    return Seek(index, &position);
  }

  // Bytes from one span to the next in the source along the innermost axis, 0 if there is only one
  // span. Outer axes may have larger strides.
  uint64_t source_stride() const { return axes_.empty() ? 0 : axes_.back().source_stride; }

  // Whether the spans are adjacent in the source: together they are size() bytes from
  // first().source on.
  bool has_contiguous_source() const;

  // Calls body(const Span&) for the spans [begin, begin + n).
  template <typename Body>
  void ForEach(uint64_t begin, uint64_t n, const Body& body) const {
    std::vector<uint64_t> position(axes_.size());
    Span span = Seek(begin, &position);
    for (uint64_t i = 0; i < n; ++i) {
      body(span);
      Advance(&position, &span);
    }
  }

 private:
  struct Axis {
    uint64_t length;
    uint64_t source_stride;
    uint64_t destination_stride;
  };
  Span Seek(uint64_t index, std::vector<uint64_t>* position) const;
  void Advance(std::vector<uint64_t>* position, Span* span) const;

  uint64_t span_size_;
  uint64_t count_ = 1;
  Span first_;
  std::vector<Axis> axes_;  // outermost first
};

// Reverses every `unit` bytes in place, for checkpoints that big-endian machines wrote.
// Requires: `unit` is 1, 2, 4 or 8 and divides the size.
void SwapBytes(MutableByteSpan bytes, unsigned unit);

}  // namespace tensorbundle
