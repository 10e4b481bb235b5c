// SPDX-License-Identifier: Apache-2.0
// Memory that elements are read into and handed out in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Owns uninitialized memory, aligned for any use of the elements. Large blocks go straight back to
// the system when freed, so that the memory of a stream is what its buffers say it is.
class PageBuffer {
 public:
  PageBuffer() = default;
  // Throws std::bad_alloc.
  explicit PageBuffer(size_t capacity);
  ~PageBuffer();

  PageBuffer(PageBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), capacity_(std::exchange(other.capacity_, 0)) {}
  PageBuffer& operator=(PageBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }

  uint8_t* data() const { return data_; }
  size_t capacity() const { return capacity_; }

 private:
  uint8_t* data_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace tensorbundle
