// SPDX-License-Identifier: Apache-2.0
// Owners of memory, which comes from mmap(2) if it is large: uninitialized buffers for elements,
// and zeroed huge pages for tables that are accessed at random.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Uninitialized memory for elements, aligned to 64 bytes. Large blocks are returned to the system
// when freed, so that a stream uses no more memory than its buffers.
class PageBuffer {
 public:
  PageBuffer() = default;
  // Throws: std::bad_alloc.
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

// Zeroed memory, in huge pages if it is large and the system has them: a random access to small
// pages also misses the TLB, which costs as much as the cache miss. The constructor touches no page
// of large memory, so that each page is first touched by the thread that fills it.
class HugePageBuffer {
 public:
  HugePageBuffer() = default;
  // Aligns the data to a page from 1 MiB on, and to 64 bytes below. Rounds sizes of 2 MiB and more
  // up to a multiple of 2 MiB. The data of a buffer of size 0 is null. Throws: std::bad_alloc.
  explicit HugePageBuffer(size_t size);
  ~HugePageBuffer();

  HugePageBuffer(HugePageBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  HugePageBuffer& operator=(HugePageBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;  // as allocated
};

}  // namespace tensorbundle
