// SPDX-License-Identifier: Apache-2.0
// Large memory that is filled by threads and then read at random.
#pragma once

#include <cstddef>
#include <utility>

namespace tensorbundle {

// Owns zeroed memory straight from the system, in huge pages where there are any: a random access
// to small pages misses the processor's page table cache too, which costs as much as the missing
// bytes. Nothing is touched by the constructor, so pages are first touched by the thread that fills
// them.
class PageMemory {
 public:
  PageMemory() = default;
  // Throws std::bad_alloc. The data is aligned to a page; of size 0 it is null. Two megabytes and
  // more are rounded up to a multiple of them.
  explicit PageMemory(size_t size);
  ~PageMemory();

  PageMemory(PageMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PageMemory& operator=(PageMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;  // of the mapping
};

}  // namespace tensorbundle
