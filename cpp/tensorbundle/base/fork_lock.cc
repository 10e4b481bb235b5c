// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/fork_lock.h"

#include <pthread.h>

namespace tensorbundle {
namespace {

constinit std::mutex fork_mutex;

// When the library is loaded: before any thread holds the lock. Without memory for the handlers,
// the process could not load the library either.
[[maybe_unused]] const int registered = ::pthread_atfork(
    [] { fork_mutex.lock(); }, [] { fork_mutex.unlock(); }, [] { fork_mutex.unlock(); });

}  // namespace

ForkLock::ForkLock() : lock_(fork_mutex) {}

}  // namespace tensorbundle
