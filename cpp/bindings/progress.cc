// SPDX-License-Identifier: Apache-2.0
#include "bindings/progress.h"

#include <utility>

namespace tensorbundle {
namespace {

constexpr std::chrono::milliseconds kInterval(50);

}  // namespace

Progress::Progress(py::object callback, uint64_t total)
    : callback_(std::move(callback)),
      total_(total),
      thread_(std::this_thread::get_id()),
      next_report_(std::chrono::steady_clock::now() + kInterval) {}

void Progress::Add(uint64_t bytes) {
  done_.fetch_add(bytes, std::memory_order_relaxed);
  if (std::this_thread::get_id() != thread_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now < next_report_) return;
  next_report_ = now + kInterval;
  const GilAcquired acquired;
  Report();
}

void Progress::Finish() { Report(); }

void Progress::Report() {
  RaiseSignals();
  if (callback_.is_none()) return;
  const unsigned long long done = done_.load(std::memory_order_relaxed);
  const unsigned long long total = total_;
  Steal(CallPython([&] { return PyObject_CallFunction(callback_.ptr(), "KK", done, total); }));
}

}  // namespace tensorbundle
