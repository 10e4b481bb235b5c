// SPDX-License-Identifier: Apache-2.0
// Memory that was just got from the system, and how to fill it fast.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// A copy into memory that has no pages yet spends more time on the pages than on the bytes: at each
// one the system interrupts the copy, clears a page, and only then lets it be overwritten. Linux
// can also be handed a page's contents with the request for it (userfaultfd's UFFDIO_COPY), which
// takes two thirds of the time. Where it cannot, or gives out huge pages anyway, this is a plain
// copy.
//
// While an object lives, nobody may touch its memory but through it.
class FreshPages {
 public:
  // Memory smaller than this is not worth the system calls.
  static constexpr uint64_t kMinSize = uint64_t{1} << 20;

  // Takes charge of the whole pages inside `memory`, which outlives it. Never fails.
  explicit FreshPages(MutableByteSpan memory);
  ~FreshPages();
  FreshPages(const FreshPages&) = delete;
  FreshPages& operator=(const FreshPages&) = delete;

  // Whether the system plays along.
  bool active() const { return active_.load(std::memory_order_acquire); }

  // Bytes to add to an address to reach the beginning of a page.
  static uint64_t UntilPage(const void* address);

  // Copies `bytes` to their place in the memory. Pages that somebody touched before are overwritten
  // as well. Thread-safe for places that share no page; a place whose ends are inside a page is
  // slow, unless these are the ends of the memory.
  void Write(uint8_t* place, ByteSpan bytes);

 private:
  void Place(uint8_t* place, ByteSpan pages);
  void GiveUp();

  uint8_t* begin_ = nullptr;  // of the whole pages
  uint8_t* end_ = nullptr;
  int descriptor_ = -1;
  std::atomic<bool> active_{false};
  std::mutex giving_up_;
};

}  // namespace tensorbundle
