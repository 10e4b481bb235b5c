// SPDX-License-Identifier: Apache-2.0
// The lock of what the threads of a handle share, which fork(2) never leaves locked.
//
// A child of fork(2) has only the thread that called it. If another thread of the parent held a
// mutex at that moment, the child would wait for it forever. ForkLock is one mutex for the whole
// process, and fork(2) takes it too: the section of another thread ends first, so the child finds
// the lock free and the data complete.
//
// For sections of some ten instructions: they may not wait, fork, run Python or open files. Longer
// ones would block all handles. Locks of objects that no child can use need none of this.
#pragma once

#include <mutex>

namespace tensorbundle {

// Holds the lock.
class ForkLock {
 public:
  ForkLock();

 private:
  const std::lock_guard<std::mutex> lock_;
};

}  // namespace tensorbundle
