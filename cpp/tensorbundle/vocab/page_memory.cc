// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/page_memory.h"

#include <sys/mman.h>

#include <new>

namespace tensorbundle {

namespace {

constexpr size_t kHugePageSize = size_t{2} << 20;  // on x86-64, and on ARM with pages of 4 KiB

}  // namespace

PageMemory::PageMemory(size_t size) : size_(size) {
  if (size == 0) return;
  // Whole huge pages are also what makes Linux align a mapping to one.
  if (size >= kHugePageSize)
    size_ = size = (size + kHugePageSize - 1) / kHugePageSize * kHugePageSize;
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  ::madvise(data, size, MADV_HUGEPAGE);  // a wish: small pages serve as well, only slower
#endif
  data_ = data;
}

PageMemory::~PageMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace tensorbundle
