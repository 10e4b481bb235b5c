// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/uffd_buffer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>

#if defined(__linux__) && __has_include(<linux/userfaultfd.h>)
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#define TENSORBUNDLE_HAS_USERFAULTFD 1
#endif

#include "tensorbundle/base/fork_lock.h"

namespace tensorbundle {
namespace {

uint64_t PageSize() {
  constinit static FirstResult size;
  return size.Get([] { return ::sysconf(_SC_PAGESIZE); });
}

#ifdef TENSORBUNDLE_HAS_USERFAULTFD

// A huge page costs less than the small pages that it replaces, however those are filled.
bool AreHugePagesAlwaysOn() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string choices;
  std::getline(file, choices);
  return choices.find("[always]") != std::string::npos;
}

// UFFD_USER_MODE_ONLY, of Linux 5.11: page faults of user code only, which needs no privilege.
constexpr int kUserModeOnly = 1;

bool IsWorthIt() {
  constinit static FirstResult is_worth_it;
  return is_worth_it.Get([] { return !AreHugePagesAlwaysOn(); }) != 0;
}

int OpenUserfaultfd() {
  if (!IsWorthIt()) return -1;
  const auto descriptor =
      static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | kUserModeOnly));
  if (descriptor < 0) return -1;
  uffdio_api api{UFFD_API, 0, 0};
  if (::ioctl(descriptor, UFFDIO_API, &api) == 0) return descriptor;
  ::close(descriptor);
  return -1;
}

uffdio_range RangeOf(const uint8_t* begin, const uint8_t* end) {
  return {reinterpret_cast<uintptr_t>(begin), static_cast<uint64_t>(end - begin)};
}

// After this, an access to a missing page blocks until the page is provided.
bool Register(int descriptor, const uffdio_range& range) {
  uffdio_register request{range, UFFDIO_REGISTER_MODE_MISSING, 0};
  if (::ioctl(descriptor, UFFDIO_REGISTER, &request) != 0) return false;
  return (request.ioctls >> _UFFDIO_COPY & 1) != 0;
}

#endif

}  // namespace

uint64_t UffdBuffer::UntilPage(const void* address) {
  return -reinterpret_cast<uintptr_t>(address) % PageSize();
}

uint64_t UffdBuffer::SincePage(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % PageSize();
}

bool UffdBuffer::IsNew(ByteSpan memory) {
#ifdef TENSORBUNDLE_HAS_USERFAULTFD
  constexpr uint64_t kSample = 16;
  if (memory.size() < kMinSize) return false;
  uint64_t missing = 0;
  for (uint64_t i = 0; i < kSample; ++i) {
    auto address = reinterpret_cast<uintptr_t>(memory.data()) + memory.size() / kSample * i;
    address += PageSize() - address % PageSize();
    unsigned char is_resident = 1;
    // For anonymous memory: whether the page exists, or existed and was written to swap.
    if (::mincore(reinterpret_cast<void*>(address), 1, &is_resident) != 0) return false;
    if ((is_resident & 1) == 0) ++missing;
  }
  return missing > kSample / 2;
#else
  static_cast<void>(memory);
  return false;
#endif
}

#ifdef TENSORBUNDLE_HAS_USERFAULTFD

UffdBuffer::UffdBuffer(MutableByteSpan memory) {
  if (memory.size() < kMinSize) return;
  begin_ = memory.data() + UntilPage(memory.data());
  end_ = memory.data() + memory.size();
  end_ -= reinterpret_cast<uintptr_t>(end_) % PageSize();
  descriptor_ = OpenUserfaultfd();
  if (descriptor_ < 0) return;
  is_enabled_ = Register(descriptor_, RangeOf(begin_, end_));
  if (!is_enabled_) Disable();
}

UffdBuffer::~UffdBuffer() {
  if (descriptor_ < 0) return;
  // Closing the descriptor does not end the registration if a forked child holds a copy of it. This
  // process's memory would stay registered, and no thread would provide missing pages.
  if (is_enabled()) Disable();
  ::close(descriptor_);
}

void UffdBuffer::Write(uint8_t* place, ByteSpan bytes) {
  const bool whole_pages = (place <= begin_ || UntilPage(place) == 0) &&
                           (place + bytes.size() >= end_ || UntilPage(place + bytes.size()) == 0);
  if (is_enabled() && !whole_pages) Disable();
  if (!is_enabled()) {
    std::memcpy(place, bytes.data(), bytes.size());
    return;
  }
  const auto before = static_cast<uint64_t>(std::clamp<ptrdiff_t>(begin_ - place, 0, bytes.size()));
  const auto until =
      static_cast<uint64_t>(std::clamp<ptrdiff_t>(end_ - place, before, bytes.size()));
  std::memcpy(place, bytes.data(), before);
  CopyPages(place + before, bytes.subspan(before, until - before));
  std::memcpy(place + until, bytes.data() + until, bytes.size() - until);
}

void UffdBuffer::CopyPages(uint8_t* place, ByteSpan pages) {
  while (!pages.empty()) {
    uffdio_copy request{reinterpret_cast<uintptr_t>(place),
                        reinterpret_cast<uintptr_t>(pages.data()), pages.size(), 0, 0};
    if (::ioctl(descriptor_, UFFDIO_COPY, &request) == 0) return;
    uint64_t done = request.copy > 0 ? static_cast<uint64_t>(request.copy) : 0;
    if (errno == EEXIST) {  // the page exists, so that writing to it does not block
      done = PageSize();
      std::memcpy(place, pages.data(), done);
    } else if (errno != EAGAIN) {
      Disable();
      std::memcpy(place, pages.data(), pages.size());
      return;
    }
    place += done;
    pages = pages.subspan(done);
  }
}

void UffdBuffer::Disable() {
  const std::lock_guard<std::mutex> lock(disabling_);
  uffdio_range range = RangeOf(begin_, end_);
  ::ioctl(descriptor_, UFFDIO_UNREGISTER, &range);
  // Only now may other threads touch missing pages. A thread that does while the registration ends
  // can wait forever: Linux 6.18 wakes those that wait before it lets no other begin to wait.
  is_enabled_ = false;
}

#else

UffdBuffer::UffdBuffer(MutableByteSpan) {}
UffdBuffer::~UffdBuffer() = default;
void UffdBuffer::Write(uint8_t* place, ByteSpan bytes) {
  std::memcpy(place, bytes.data(), bytes.size());
}
void UffdBuffer::CopyPages(uint8_t*, ByteSpan) {}
void UffdBuffer::Disable() {}

#endif

}  // namespace tensorbundle
