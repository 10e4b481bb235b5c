// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/fork_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "forked_child.h"

namespace tensorbundle {
namespace {

// fork() waits for a thread that holds the lock, so the child can take it.
TEST(ForkLock, IsFreeInAForkedChild) {
  std::atomic<bool> is_held{false};
  std::atomic<bool> is_released{false};
  std::thread thread([&] {
    std::optional<ForkLock> lock(std::in_place);
    is_held = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    is_released = true;
    lock.reset();
  });
  while (!is_held) std::this_thread::yield();
  const auto in_child = [&] {
    ::alarm(20);
    const ForkLock lock;
    return is_released.load();
  };
  EXPECT_EQ(testing::RunInForkedChild(in_child), 0);
  thread.join();
  const ForkLock lock;  // and free in the parent
}

TEST(ForkLock, ManyForksWhileThreadsHoldTheLock) {
  std::atomic<bool> stop{false};
  int value = 0;  // guarded by the lock
  std::thread thread([&] {
    while (!stop) {
      const ForkLock lock;
      ++value;
      --value;
    }
  });
  for (int i = 0; i < 100; ++i) {
    const auto in_child = [&] {
      ::alarm(20);
      const ForkLock lock;
      return value == 0;
    };
    EXPECT_EQ(testing::RunInForkedChild(in_child), 0);
  }
  stop = true;
  thread.join();
}

}  // namespace
}  // namespace tensorbundle
