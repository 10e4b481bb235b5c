// SPDX-License-Identifier: Apache-2.0
// What a child of fork(2) can rely on, whatever the other threads of its parent did at that moment.
//
// A child has only the thread that called fork(2), and the memory as it was. Of another thread that
// was at work, it has what that thread had done so far:
// - A lock that the thread held stays locked. ForkLock is never held during a fork.
// - A static variable of a function that the thread was initializing stays so, and the child waits
//   for it forever. FirstResult, which needs no initialization at run time, has no state in
//   between.
// - Another thread that it was starting is half made. glibc starts threads in the memory of
//   threads that have ended, and frees their thread-local variables first. A child that was forked
//   in the middle frees the same variables again when it starts a thread, and aborts (seen with
//   glibc 2.36). No fork is in the middle of the start of a Thread.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>

namespace tensorbundle {

// Holds the lock of what the threads of a handle share: one mutex for the whole process. fork(2)
// takes it too, so the section of another thread ends first, and the child finds the lock free and
// the data complete.
//
// For sections of some ten instructions: they may not wait, fork, run Python, open files or start
// threads. Longer ones would block all handles. Locks of objects that no child can use need none of
// this.
class ForkLock {
 public:
  ForkLock();

 private:
  const std::lock_guard<std::mutex> lock_;
};

// Holds the lock that Thread takes while it starts.
class StartLock {
 public:
  StartLock();

 private:
  const std::lock_guard<std::mutex> lock_;
};

// A std::thread that is started under StartLock.
class Thread {
 public:
  // Throws: std::system_error if the system refuses to start a thread, std::bad_alloc.
  template <std::invocable Function>
  explicit Thread(Function function) : thread_(Start(std::move(function))) {}

  // Waits until the function has returned. Required once, before the destructor.
  void Join() { thread_.join(); }

 private:
  template <typename Function>
  static std::thread Start(Function function) {
    const StartLock lock;
    return std::thread(std::move(function));
  }

  std::thread thread_;
};

// The result of a function that is called at the first use. Threads that ask at the same time may
// each call it; the result of the first that returns counts.
class FirstResult {
 public:
  // `compute` returns a number below 2^64 - 1. If it throws, the next use calls it again.
  template <typename Function>
  uint64_t Get(const Function& compute) {
    uint64_t known = known_.load(std::memory_order_acquire);
    if (known != 0) return known - 1;
    const auto computed = static_cast<uint64_t>(compute());
    return known_.compare_exchange_strong(known, computed + 1) ? computed : known - 1;
  }

 private:
  std::atomic<uint64_t> known_{0};  // 0, or the result + 1
};

}  // namespace tensorbundle
