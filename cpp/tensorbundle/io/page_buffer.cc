// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/page_buffer.h"

#include <sys/mman.h>

#include <new>

namespace tensorbundle {
namespace {

constexpr size_t kMinMapped = size_t{1} << 20;
constexpr std::align_val_t kAlignment{64};  // what TensorFlow, JAX and vector instructions ask for

}  // namespace

PageBuffer::PageBuffer(size_t capacity) {
  if (capacity >= kMinMapped) {
    void* data =
        ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(data);
  } else {
    data_ = static_cast<uint8_t*>(::operator new(capacity, kAlignment));
  }
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

}  // namespace tensorbundle
