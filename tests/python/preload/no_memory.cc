// SPDX-License-Identifier: Apache-2.0
// A preloaded library that makes one C++ allocation, or every pthread_create(), fail on request.
// Only calls from the address ranges in `counted` are counted and fail; calls by Python and by
// other libraries succeed.
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

extern "C" {
uintptr_t counted[4] = {};  // start and end of two code ranges
int64_t fail_at = 0;        // the number of the call that fails, from 1; 0 for none
int fail_threads = 0;
std::atomic<int64_t> num_calls{0};
}

namespace {

bool IsCounted(void* caller) {
  const auto address = reinterpret_cast<uintptr_t>(caller);
  return (address >= counted[0] && address < counted[1]) ||
         (address >= counted[2] && address < counted[3]);
}

void* Allocate(size_t size, size_t alignment, void* caller) {
  if (IsCounted(caller) && ++num_calls == fail_at) throw std::bad_alloc();
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size == 0 ? 1 : size) != 0) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t size) {
  return Allocate(size, alignof(std::max_align_t), __builtin_return_address(0));
}
void* operator new[](size_t size) {
  return Allocate(size, alignof(std::max_align_t), __builtin_return_address(0));
}
void* operator new(size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<size_t>(alignment), __builtin_return_address(0));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) {
  if (fail_threads != 0) return EAGAIN;
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  return create(thread, attributes, start, argument);
}
