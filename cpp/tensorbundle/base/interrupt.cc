// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/interrupt.h"

#include <chrono>
#include <stdexcept>

namespace tensorbundle {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kInterval(50);

// Has no constructor, so that access needs no check for its initialization.
struct ThreadState {
  InterruptCheck check;
  const std::atomic<bool>* stop;
  Clock::rep next_check;  // 0: at the end of an interval that begins with the first call
};

thread_local ThreadState state;

}  // namespace

InterruptScope::InterruptScope(InterruptCheck check) : outer_(state.check) {
  state.check = check;
  state.next_check = 0;
}

InterruptScope::~InterruptScope() {
  state.check = outer_;
  state.next_check = 0;
}

bool IsInterruptible() { return state.check != nullptr || state.stop != nullptr; }

StopScope::StopScope(const std::atomic<bool>* stop) : outer_(state.stop) { state.stop = stop; }

StopScope::~StopScope() { state.stop = outer_; }

void CheckInterrupt() {
  if (state.stop != nullptr && state.stop->load(std::memory_order_relaxed)) {
    throw std::runtime_error("another thread has failed");
  }
  if (state.check == nullptr) return;
  const Clock::time_point now = Clock::now();
  const bool is_first = state.next_check == 0;
  if (!is_first && now.time_since_epoch().count() < state.next_check) return;
  state.next_check = (now + kInterval).time_since_epoch().count();
  if (!is_first) state.check();
}

}  // namespace tensorbundle
