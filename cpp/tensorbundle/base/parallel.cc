// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/parallel.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "tensorbundle/base/fork_lock.h"
#include "tensorbundle/base/interrupt.h"
#include "tensorbundle/base/parallel_internal.h"

namespace tensorbundle {
namespace {

// The state that the threads of one ParallelFor share.
struct Shared {
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  const bool is_interruptible = IsInterruptible();  // the caller
  std::mutex mutex;
  std::exception_ptr error;  // guarded by mutex
};

// More than the size of the thread-local variables of the C++ runtime.
constexpr size_t kThreadStateSize = 4096;

void Work(size_t count, const std::function<void(size_t)>& body, Shared* shared) {
  const StopScope scope(shared->is_interruptible ? &shared->stop : nullptr);
  try {
    while (true) {
      const size_t i = shared->next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      if (shared->stop.load(std::memory_order_relaxed)) return;
      body(i);
      if (i + 1 < count) CheckInterrupt();
    }
  } catch (...) {
    const std::lock_guard<std::mutex> lock(shared->mutex);
    if (!shared->error) shared->error = std::current_exception();
    shared->stop.store(true, std::memory_order_relaxed);
  }
}

int AffinityCount() {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int ProcessorsOfQuota(std::istream& cpu_max) {
  std::string quota;
  double period = 0;
  if (!(cpu_max >> quota >> period) || quota == "max" || period <= 0) return 0;
  try {
    const double whole = std::ceil(std::stod(quota) / period);
    return static_cast<int>(std::clamp(whole, 1.0, 1e6));  // within an int, whatever the file says
  } catch (const std::exception&) {
    return 0;
  }
}

bool PrepareToThrow() {
  // glibc aborts the process if it cannot allocate the thread-local variables of a library, so try
  // an allocation of that size first.
  void* volatile memory = std::malloc(kThreadStateSize);  // volatile: prevents its elimination
  if (memory == nullptr) return false;
  std::free(memory);
  return std::uncaught_exceptions() >= 0;  // makes libstdc++ allocate its variables
}

void ParallelFor(size_t count, int threads, const std::function<void(size_t)>& body) {
  Shared shared;
  const size_t wanted = std::min(count, static_cast<size_t>(std::max(1, threads)));
  std::vector<Thread> others;
  others.reserve(wanted);
  for (size_t i = 1; i < wanted; ++i) {
    try {
      others.emplace_back([&] {
        if (PrepareToThrow()) Work(count, body, &shared);
      });
    } catch (const std::exception&) {
      break;  // no more threads: the existing ones do all of the work
    }
  }
  Work(count, body, &shared);
  for (Thread& thread : others) thread.Join();
  if (shared.error) std::rethrow_exception(shared.error);
}

int AvailableProcessors() {
  // Read once: it would take a tenth of the time in which a small checkpoint is opened.
  constinit static FirstResult first_quota;
  const auto quota = static_cast<int>(first_quota.Get([] {
    std::ifstream cpu_max("/sys/fs/cgroup/cpu.max");
    return ProcessorsOfQuota(cpu_max);
  }));
  const int affinity = AffinityCount();
  return quota > 0 ? std::min(quota, affinity) : affinity;
}

}  // namespace tensorbundle
