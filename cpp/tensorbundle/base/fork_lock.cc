// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/fork_lock.h"

#include <pthread.h>

namespace tensorbundle {
namespace {

constinit std::mutex start_mutex;
constinit std::mutex fork_mutex;

// The longer wait comes first: while a thread starts, other threads can use their handles. Handlers
// of libraries that were loaded earlier run while both locks are held: they may not wait for
// threads that use this library.
void BeforeFork() {
  start_mutex.lock();
  fork_mutex.lock();
}

// In the parent and in the child.
void AfterFork() {
  fork_mutex.unlock();
  start_mutex.unlock();
}

// When the library is loaded: before any thread holds the locks. Without memory for the handlers,
// the process could not load the library either.
[[maybe_unused]] const int registered = ::pthread_atfork(&BeforeFork, &AfterFork, &AfterFork);

}  // namespace

ForkLock::ForkLock() : lock_(fork_mutex) {}

StartLock::StartLock() : lock_(start_mutex) {}

}  // namespace tensorbundle
