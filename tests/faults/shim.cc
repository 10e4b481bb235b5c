// SPDX-License-Identifier: Apache-2.0
// A preloaded library that makes calls of the C library fail, be short, be interrupted or be slow.
//
//   fault_mode    0: nothing; 1: call number fault_at fails; 2: all calls from fault_at on fail;
//                 3: reads and writes move half of the bytes; 4: every second call is interrupted;
//                 5: each free() during pthread_create() takes 0.3 ms
//   fault_groups  a bit per group of functions: only their calls are counted and fail
//   fault_folder  only paths below it, and descriptors of such files, are counted
//   fault_code    address ranges: only allocations by code in them are counted
//   fault_count   the number of calls counted so far
//
// A test sets these variables through ctypes. All other calls go to the C library.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

extern "C" {
int fault_mode = 0;
uint32_t fault_groups = 0;
int64_t fault_at = 0;
int fault_errno = 0;
char fault_folder[4096] = "";
uintptr_t fault_code[16] = {};
std::atomic<int64_t> fault_count{0};
}

namespace {

enum Mode { kOff, kFail, kFailFrom, kShort, kInterrupt, kSlowStart };
enum Group : uint32_t {
  kOpen = 1,
  kRead = 2,
  kMap = 4,
  kStat = 8,
  kWrite = 16,
  kSync = 32,
  kName = 64,     // rename, link, mkdir
  kRemove = 128,  // unlink, rmdir
  kSize = 256,    // ftruncate, fallocate
  kMemory = 512,
  kThread = 1024,
  kList = 2048,  // opendir, readdir
  kClose = 4096,
  kLock = 8192,
  kSeek = 16384,
};

bool IsPathCounted(const char* path) {
  const size_t size = std::strlen(fault_folder);
  return path != nullptr && size > 0 && std::strncmp(path, fault_folder, size) == 0;
}

bool IsDescriptorCounted(int descriptor) {
  if (descriptor < 0) return false;
  char link[64];
  char path[4096];
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const long size = ::syscall(SYS_readlink, link, path, sizeof(path) - 1);
  if (size <= 0) return false;
  path[size] = '\0';
  return IsPathCounted(path);
}

bool IsGroup(Group group) { return fault_mode != kOff && (fault_groups & group) != 0; }

// Counts a call of the group. Returns whether it must fail; errno is then set.
bool Fails(Group group) {
  const int64_t number = ++fault_count;
  bool fails = false;
  int error = fault_errno;
  if (fault_mode == kFail) fails = number == fault_at;
  if (fault_mode == kFailFrom) fails = number >= fault_at;
  if (fault_mode == kInterrupt) {
    constexpr uint32_t kInterruptible = kOpen | kRead | kWrite | kSync | kSize;
    fails = (group & kInterruptible) != 0 && number % 2 == 1;
    error = EINTR;
  }
  if (fails) errno = error;
  return fails;
}

bool FailsAt(Group group, const char* path) {
  return IsGroup(group) && IsPathCounted(path) && Fails(group);
}

bool FailsAt(Group group, int descriptor) {
  return IsGroup(group) && IsDescriptorCounted(descriptor) && Fails(group);
}

bool FailsAt(Group group, int directory, const char* path) {
  return path != nullptr && path[0] == '/' ? FailsAt(group, path) : FailsAt(group, directory);
}

size_t Shortened(Group group, int descriptor, size_t size) {
  const bool is_short = fault_mode == kShort && IsGroup(group) && IsDescriptorCounted(descriptor);
  if (is_short) ++fault_count;
  return is_short ? (size + 1) / 2 : size;
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

__attribute__((tls_model("initial-exec"))) thread_local bool is_starting_slowly = false;

bool AllocationFails(void* caller) {
  if (!IsGroup(kMemory)) return false;
  const auto address = reinterpret_cast<uintptr_t>(caller);
  for (size_t i = 0; i < 16; i += 2) {
    if (address >= fault_code[i] && address < fault_code[i + 1]) return Fails(kMemory);
  }
  return false;
}

void* Allocate(size_t size, size_t alignment, void* caller) {
  if (AllocationFails(caller)) throw std::bad_alloc();
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), size == 0 ? 1 : size) != 0)
    throw std::bad_alloc();
  return memory;
}

}  // namespace

#define NEXT(name) static const auto next = Next<decltype(name)>(#name)
// Defines a function whose calls fail with `failed`; `where` is its path or its descriptor.
#define FAULT(result, name, parameters, arguments, group, where, failed) \
  extern "C" result name parameters {                                    \
    NEXT(name);                                                          \
    if (FailsAt(group, where)) return failed;                            \
    return next arguments;                                               \
  }
// Defines a function that moves bytes, and may move fewer than requested.
#define TRANSFER(name, bytes, extra_parameters, extra_arguments, group)                \
  extern "C" ssize_t name(int descriptor, bytes data, size_t size extra_parameters) {  \
    NEXT(name);                                                                        \
    if (FailsAt(group, descriptor)) return -1;                                         \
    return next(descriptor, data, Shortened(group, descriptor, size) extra_arguments); \
  }
// Defines a function that moves bytes from or to several buffers; "short" uses the first only.
#define VECTOR(name, extra_parameters, extra_arguments, group)                                   \
  extern "C" ssize_t name(int descriptor, const iovec* data, int count extra_parameters) {       \
    NEXT(name);                                                                                  \
    if (FailsAt(group, descriptor)) return -1;                                                   \
    if (fault_mode != kShort || count < 1) return next(descriptor, data, count extra_arguments); \
    iovec first = data[0];                                                                       \
    first.iov_len = Shortened(group, descriptor, first.iov_len);                                 \
    return next(descriptor, &first, 1 extra_arguments);                                          \
  }
#define OPEN(name)                                        \
  extern "C" int name(const char* path, int flags, ...) { \
    NEXT(name);                                           \
    va_list arguments;                                    \
    va_start(arguments, flags);                           \
    const mode_t mode = va_arg(arguments, mode_t);        \
    va_end(arguments);                                    \
    if (FailsAt(kOpen, path)) return -1;                  \
    return next(path, flags, mode);                       \
  }
#define OPENAT(name)                                                     \
  extern "C" int name(int directory, const char* path, int flags, ...) { \
    NEXT(name);                                                          \
    va_list arguments;                                                   \
    va_start(arguments, flags);                                          \
    const mode_t mode = va_arg(arguments, mode_t);                       \
    va_end(arguments);                                                   \
    if (FailsAt(kOpen, directory, path)) return -1;                      \
    return next(directory, path, flags, mode);                           \
  }
#define COMMA ,

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FAULT(FILE*, fopen, (const char* path, const char* mode), (path, mode), kOpen, path, nullptr)
FAULT(FILE*, fopen64, (const char* path, const char* mode), (path, mode), kOpen, path, nullptr)
FAULT(DIR*, opendir, (const char* path), (path), kList, path, nullptr)
FAULT(dirent*, readdir, (DIR * stream), (stream), kList, dirfd(stream), nullptr)
FAULT(dirent64*, readdir64, (DIR * stream), (stream), kList, dirfd(stream), nullptr)

TRANSFER(read, void*, , , kRead)
TRANSFER(pread, void*, COMMA off_t offset, COMMA offset, kRead)
TRANSFER(pread64, void*, COMMA off64_t offset, COMMA offset, kRead)
VECTOR(readv, , , kRead)
VECTOR(preadv, COMMA off_t offset, COMMA offset, kRead)
VECTOR(preadv64, COMMA off64_t offset, COMMA offset, kRead)
VECTOR(preadv2, COMMA off_t offset COMMA int flags, COMMA offset COMMA flags, kRead)
VECTOR(preadv64v2, COMMA off64_t offset COMMA int flags, COMMA offset COMMA flags, kRead)
TRANSFER(write, const void*, , , kWrite)
TRANSFER(pwrite, const void*, COMMA off_t offset, COMMA offset, kWrite)
TRANSFER(pwrite64, const void*, COMMA off64_t offset, COMMA offset, kWrite)
VECTOR(writev, , , kWrite)
VECTOR(pwritev, COMMA off_t offset, COMMA offset, kWrite)
VECTOR(pwritev64, COMMA off64_t offset, COMMA offset, kWrite)

FAULT(int, fsync, (int descriptor), (descriptor), kSync, descriptor, -1)
FAULT(int, fdatasync, (int descriptor), (descriptor), kSync, descriptor, -1)
FAULT(int, sync_file_range, (int descriptor, off64_t at, off64_t size, unsigned flags),
      (descriptor, at, size, flags), kSync, descriptor, -1)
FAULT(int, flock, (int descriptor, int operation), (descriptor, operation), kLock, descriptor, -1)

FAULT(int, rename, (const char* from, const char* to) noexcept, (from, to), kName, to, -1)
FAULT(int, renameat, (int a, const char* from, int b, const char* to) noexcept, (a, from, b, to),
      kName, to, -1)
FAULT(int, link, (const char* from, const char* to) noexcept, (from, to), kName, to, -1)
FAULT(int, linkat, (int a, const char* from, int b, const char* to, int flags) noexcept,
      (a, from, b, to, flags), kName, to, -1)
FAULT(int, mkdir, (const char* path, mode_t mode) noexcept, (path, mode), kName, path, -1)
FAULT(int, mkdirat, (int directory, const char* path, mode_t mode) noexcept,
      (directory, path, mode), kName, path, -1)
FAULT(int, unlink, (const char* path) noexcept, (path), kRemove, path, -1)
FAULT(int, unlinkat, (int directory, const char* path, int flags) noexcept,
      (directory, path, flags), kRemove, path, -1)
FAULT(int, rmdir, (const char* path) noexcept, (path), kRemove, path, -1)

FAULT(int, ftruncate, (int descriptor, off_t size) noexcept, (descriptor, size), kSize, descriptor,
      -1)
FAULT(int, ftruncate64, (int descriptor, off64_t size) noexcept, (descriptor, size), kSize,
      descriptor, -1)
FAULT(int, fallocate, (int descriptor, int mode, off_t at, off_t size),
      (descriptor, mode, at, size), kSize, descriptor, -1)
FAULT(int, fallocate64, (int descriptor, int mode, off64_t at, off64_t size),
      (descriptor, mode, at, size), kSize, descriptor, -1)
FAULT(off_t, lseek, (int descriptor, off_t offset, int from) noexcept, (descriptor, offset, from),
      kSeek, descriptor, -1)
FAULT(off64_t, lseek64, (int descriptor, off64_t offset, int from) noexcept,
      (descriptor, offset, from), kSeek, descriptor, -1)

FAULT(int, stat, (const char* path, struct stat* status) noexcept, (path, status), kStat, path, -1)
FAULT(int, stat64, (const char* path, struct stat64* status) noexcept, (path, status), kStat, path,
      -1)
FAULT(int, lstat, (const char* path, struct stat* status) noexcept, (path, status), kStat, path, -1)
FAULT(int, lstat64, (const char* path, struct stat64* status) noexcept, (path, status), kStat, path,
      -1)
FAULT(int, fstat, (int descriptor, struct stat* status) noexcept, (descriptor, status), kStat,
      descriptor, -1)
FAULT(int, fstat64, (int descriptor, struct stat64* status) noexcept, (descriptor, status), kStat,
      descriptor, -1)
FAULT(int, access, (const char* path, int mode) noexcept, (path, mode), kStat, path, -1)

extern "C" int statx(int directory, const char* path, int flags, unsigned mask,
                     struct statx* status) noexcept {
  NEXT(statx);
  if (FailsAt(kStat, directory, path)) return -1;
  return next(directory, path, flags, mask, status);
}

// Closes the descriptor even if it fails, as Linux does.
extern "C" int close(int descriptor) {
  NEXT(close);
  const bool fails = FailsAt(kClose, descriptor);
  const int error = errno;
  const int result = next(descriptor);
  if (!fails) return result;
  errno = error;
  return -1;
}

#define MAP(name, offset_type)                                                            \
  extern "C" void* name(void* at, size_t size, int protection, int flags, int descriptor, \
                        offset_type offset) noexcept {                                    \
    NEXT(name);                                                                           \
    if (FailsAt(kMap, descriptor)) return MAP_FAILED;                                     \
    return next(at, size, protection, flags, descriptor, offset);                         \
  }
MAP(mmap, off_t)
MAP(mmap64, off64_t)

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) noexcept {
  NEXT(pthread_create);
  if (IsGroup(kThread) && Fails(kThread)) return fault_errno;
  is_starting_slowly = fault_mode == kSlowStart;
  const int error = next(thread, attributes, start, argument);
  is_starting_slowly = false;
  return error;
}

extern "C" void __libc_free(void* memory);
extern "C" void free(void* memory) noexcept {
  __libc_free(memory);
  if (is_starting_slowly && memory != nullptr) usleep(300);
}

extern "C" void* __libc_malloc(size_t size);
extern "C" void* malloc(size_t size) noexcept {
  if (AllocationFails(__builtin_return_address(0))) return nullptr;
  return __libc_malloc(size);
}
extern "C" void* aligned_alloc(size_t alignment, size_t size) noexcept {
  NEXT(aligned_alloc);
  if (AllocationFails(__builtin_return_address(0))) return nullptr;
  return next(alignment, size);
}

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
