// SPDX-License-Identifier: Apache-2.0
// A parallel loop on threads that live for one call. There is no thread pool: fork() cannot lose
// its threads, and no thread is idle between calls.
#pragma once

#include <cstddef>
#include <functional>

namespace tensorbundle {

// Runs body(i) for every i in [0, count) on at most `threads` threads, including the caller's.
// Indices are taken in ascending order. If the system refuses to start a thread, the others do its
// work. Throws: the first exception of `body`, after all threads have ended; no new index is
// started after an exception. CheckInterrupt() is called after each index; if the
// caller has an InterruptScope, it throws in long bodies after an exception in another thread.
void ParallelFor(size_t count, int threads, const std::function<void(size_t)>& body);

// Allocates the memory that the first exception of a thread needs, because glibc aborts the process
// if that allocation fails. Returns false if there is no memory.
bool PrepareToThrow();

// Returns the number of processors that this process may use: its affinity mask, bounded by the CPU
// quota that its cgroup had at the first call.
int AvailableProcessors();

}  // namespace tensorbundle
