// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/page_buffer.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace tensorbundle {
namespace {

constexpr size_t kMinMapped = size_t{1} << 20;
constexpr std::align_val_t kAlignment{64};  // what TensorFlow, JAX and vector instructions require
constexpr size_t kHugePageSize = size_t{2} << 20;  // on x86-64, and on ARM with pages of 4 KiB

// Returns memory of the heap, or a mapping, whose pages are zero. Throws: std::bad_alloc.
void* Allocate(size_t size) {
  if (size < kMinMapped) return ::operator new(size, kAlignment);
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  return data;
}

// Frees what Allocate(size) has returned.
void Free(void* data, size_t size) {
  if (data == nullptr) return;
  if (size < kMinMapped) {
    ::operator delete(data, kAlignment);
  } else {
    ::munmap(data, size);
  }
}

}  // namespace

PageBuffer::PageBuffer(size_t capacity)
    : data_(static_cast<uint8_t*>(Allocate(capacity))), capacity_(capacity) {}

PageBuffer::~PageBuffer() { Free(data_, capacity_); }

HugePageBuffer::HugePageBuffer(size_t size) : size_(size) {
  if (size == 0) return;
  // Linux aligns a mapping to huge pages if it has a multiple of their size.
  if (size >= kHugePageSize) {
    size_ = (size + kHugePageSize - 1) / kHugePageSize * kHugePageSize;
  }
  data_ = Allocate(size_);
  if (size_ < kMinMapped) {
    std::memset(data_, 0, size_);
    return;
  }
#ifdef MADV_HUGEPAGE
  ::madvise(data_, size_, MADV_HUGEPAGE);  // may fail: small pages work too
#endif
}

HugePageBuffer::~HugePageBuffer() { Free(data_, size_); }

}  // namespace tensorbundle
