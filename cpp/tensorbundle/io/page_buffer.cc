// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/page_buffer.h"

#include <sys/mman.h>

#include <new>

namespace tensorbundle {
namespace {

constexpr size_t kMinMapped = size_t{1} << 20;
constexpr std::align_val_t kAlignment{64};  // what TensorFlow, JAX and vector instructions require
constexpr size_t kHugePageSize = size_t{2} << 20;  // on x86-64, and on ARM with pages of 4 KiB

// Throws: std::bad_alloc.
void* MapAnonymous(size_t size) {
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  return data;
}

}  // namespace

PageBuffer::PageBuffer(size_t capacity) {
  data_ = static_cast<uint8_t*>(capacity >= kMinMapped ? MapAnonymous(capacity)
                                                       : ::operator new(capacity, kAlignment));
  capacity_ = capacity;
}

PageBuffer::~PageBuffer() {
  if (data_ == nullptr) return;
  if (capacity_ >= kMinMapped) {
    ::munmap(data_, capacity_);
  } else {
    ::operator delete(data_, kAlignment);
  }
}

HugePageBuffer::HugePageBuffer(size_t size) : size_(size) {
  if (size == 0) return;
  // Linux aligns a mapping to huge pages if it has a multiple of their size.
  if (size >= kHugePageSize) {
    size_ = size = (size + kHugePageSize - 1) / kHugePageSize * kHugePageSize;
  }
  data_ = MapAnonymous(size);
#ifdef MADV_HUGEPAGE
  ::madvise(data_, size, MADV_HUGEPAGE);  // may fail: small pages work too
#endif
}

HugePageBuffer::~HugePageBuffer() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace tensorbundle
