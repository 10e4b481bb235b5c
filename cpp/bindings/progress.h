// SPDX-License-Identifier: Apache-2.0
// Telling Python how far a long call has come, and hearing Ctrl-C meanwhile.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "bindings/pybind.h"

namespace tensorbundle {

// Any thread may add to it, without the GIL. Python hears of it on the thread that made it, a few
// times a second.
class Progress {
 public:
  // `callback` is None or a callable of (done_bytes, total_bytes).
  Progress(py::object callback, uint64_t total);

  // Throws what the callback raised, or KeyboardInterrupt.
  void Add(uint64_t bytes);

  // The last report. To be called with the GIL held.
  void Finish();

 private:
  void Report();

  py::object callback_;
  uint64_t total_;
  std::atomic<uint64_t> done_{0};
  std::thread::id thread_;
  std::chrono::steady_clock::time_point next_report_;
};

}  // namespace tensorbundle
