// SPDX-License-Identifier: Apache-2.0
// The geometry of copying a box from one row-major array into another.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// Equally long runs of bytes that are contiguous on both sides, `count()` of them, in row-major
// order of the box.
class CopyLayout {
 public:
  // `source` and `destination` are where the two arrays lie in one tensor, `common` lies in both
  // and is not empty.
  CopyLayout(std::span<const Extent> source, std::span<const Extent> destination,
             std::span<const Extent> common, uint64_t item_size);

  // Where one run lies in its arrays, in bytes.
  struct Run {
    uint64_t source = 0;
    uint64_t destination = 0;
  };

  uint64_t span_size() const { return run_size_; }
  uint64_t count() const { return count_; }

  // Bytes from one run to the next in the source, 0 when there is only one run. Outer axes may jump
  // farther.
  uint64_t source_stride() const { return axes_.empty() ? 0 : axes_.back().source_stride; }

  // Whether the runs follow each other in the source without a gap: together they are the
  // span_size() * count() bytes from first_source() on.
  bool contiguous_source() const;
  uint64_t first_source() const { return origin_.source; }
  uint64_t first_destination() const { return origin_.destination; }

  // Calls body(Run) for the runs [first, first + n).
  template <typename Body>
  void ForEach(uint64_t first, uint64_t n, const Body& body) const {
    std::vector<uint64_t> position(axes_.size());
    Run run = Seek(first, &position);
    for (uint64_t i = 0; i < n; ++i) {
      body(run);
      Advance(&position, &run);
    }
  }

 private:
  struct Axis {
    uint64_t length;
    uint64_t source_stride;
    uint64_t destination_stride;
  };
  Run Seek(uint64_t index, std::vector<uint64_t>* position) const;
  void Advance(std::vector<uint64_t>* position, Run* run) const;

  uint64_t run_size_;
  uint64_t count_ = 1;
  Run origin_;
  std::vector<Axis> axes_;  // outermost first
};

// Byte order, for checkpoints that big-endian machines wrote.

// Reverses every `unit` bytes in place; `unit` is 1, 2, 4 or 8 and divides the size.
void SwapBytes(MutableByteSpan bytes, unsigned unit);

}  // namespace tensorbundle
