// SPDX-License-Identifier: Apache-2.0
// Work shared among threads that live for one call only: nothing is left behind for fork() to lose,
// and nothing runs when nobody asked for it.
#pragma once

#include <cstddef>
#include <functional>

namespace tensorbundle {

// Runs body(i) for every i in [0, count) on at most `threads` threads, the caller's among them.
// Indices are handed out in ascending order. The first exception stops the handing out and is
// rethrown here after all threads have ended. If the system refuses a thread, the others do its
// work.
void ParallelFor(size_t count, int threads, const std::function<void(size_t)>& body);

// Makes sure that this thread can throw when it has no memory left: the first exception of a thread
// needs some, and glibc aborts the process if there is none. False: there is none now.
bool PrepareToThrow();

// Processors this process may run on: its affinity mask, bounded by its cgroup's CPU quota.
int AvailableProcessors();

}  // namespace tensorbundle
