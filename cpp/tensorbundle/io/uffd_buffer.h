// SPDX-License-Identifier: Apache-2.0
// Fast filling of newly allocated memory with userfaultfd(2).
//
// Copying into memory without pages spends more time on the pages than on the bytes: at each page
// the kernel interrupts the copy and clears the page, which the copy then overwrites. UFFDIO_COPY
// allocates pages together with their contents, in two thirds of the time.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// Fills memory through userfaultfd. Falls back to memcpy where the kernel refuses it, or allocates
// huge pages anyway. While an object lives, its memory must not be accessed in any other way.
class UffdBuffer {
 public:
  // Smaller memory is not worth the system calls.
  static constexpr uint64_t kMinSize = uint64_t{1} << 20;

  // Registers the whole pages inside `memory`, which must outlive the object. Never fails.
  explicit UffdBuffer(MutableByteSpan memory);
  ~UffdBuffer();
  UffdBuffer(const UffdBuffer&) = delete;
  UffdBuffer& operator=(const UffdBuffer&) = delete;

  // Whether most pages of the memory do not exist yet, by a sample of them. False if the system
  // does not tell. Existing pages are filled faster by a plain copy.
  static bool IsNew(ByteSpan memory);

  // False: Write() is a memcpy.
  bool is_enabled() const { return is_enabled_.load(std::memory_order_acquire); }

  // Returns the number of bytes from an address to the next beginning of a page.
  static uint64_t UntilPage(const void* address);

  // Returns the number of bytes from the beginning of its page to an address.
  static uint64_t SincePage(const void* address);

  // Copies `bytes` to `place`, which is inside the memory. Overwrites pages that exist already.
  // Ends inside a page are slow, except at the ends of the memory.
  // Threads: any number, in places that share no page.
  void Write(uint8_t* place, ByteSpan bytes);

 private:
  void CopyPages(uint8_t* place, ByteSpan pages);
  void Disable();

  uint8_t* begin_ = nullptr;  // of the whole pages
  uint8_t* end_ = nullptr;
  int descriptor_ = -1;
  std::atomic<bool> is_enabled_{false};
  std::mutex disabling_;
};

}  // namespace tensorbundle
