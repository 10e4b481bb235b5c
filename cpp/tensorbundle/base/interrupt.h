// SPDX-License-Identifier: Apache-2.0
// Ending long work early: because its caller wants to, or because another thread of the same loop
// has failed.
//
// Long work calls CheckInterrupt() at least every 10 MB or so. ParallelFor() does it between two
// indices, so that only bodies that take long call it themselves. It may wait for the caller's
// lock (Python's GIL), so no lock may be held that a thread with that lock waits for.
//
// Only a thread with an InterruptScope is interrupted, and the threads of its loops. Work that
// other callers may wait for, such as that of TensorFlow's kernels, has none: one caller's failure
// must not end what others need.
#pragma once

#include <atomic>

namespace tensorbundle {

// Throws to stop the work of this thread.
using InterruptCheck = void (*)();

// While it lives, CheckInterrupt() on this thread calls `check`, at most every 50 ms. An inner
// scope replaces an outer one.
class InterruptScope {
 public:
  explicit InterruptScope(InterruptCheck check);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  InterruptCheck outer_;
};

// Whether CheckInterrupt() may throw on this thread.
bool IsInterruptible();

// While it lives, CheckInterrupt() on this thread throws as soon as `stop` is set; null: never.
class StopScope {
 public:
  explicit StopScope(const std::atomic<bool>* stop);
  ~StopScope();
  StopScope(const StopScope&) = delete;
  StopScope& operator=(const StopScope&) = delete;

 private:
  const std::atomic<bool>* outer_;
};

// Costs a few nanoseconds without a scope, and the time of reading a clock with one.
// Throws: what the check of the innermost scope throws; std::runtime_error if the work was stopped,
// which ParallelFor() replaces by the exception that stopped it.
void CheckInterrupt();

}  // namespace tensorbundle
