// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/fork_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <thread>

#include "forked_child.h"

namespace tensorbundle {
namespace {

// fork() waits for a thread that holds the lock, so the child can take it.
TEST(ForkLock, IsFreeInAForkedChild) {
  std::atomic<bool> is_held{false};
  std::atomic<bool> is_released{false};
  std::thread thread([&] {
    const ForkLock lock;
    is_held = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    is_released = true;
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

struct Moves {
  std::atomic<int> number{0};  // begun
  std::atomic<bool> is_moving{false};
};

// A function that takes time to move.
class SlowToMove {
 public:
  explicit SlowToMove(Moves* moves) : moves_(moves) {}
  SlowToMove(SlowToMove&& other) noexcept : moves_(other.moves_) {
    ++moves_->number;
    moves_->is_moving = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    moves_->is_moving = false;
  }
  void operator()() const {}

 private:
  Moves* moves_;
};

// std::thread moves its function. The first move is that of the argument, before the lock is taken.
TEST(Thread, NoForkIsInTheMiddleOfItsStart) {
  Moves moves;
  std::thread starter([&] { Thread(SlowToMove(&moves)).Join(); });
  while (moves.number < 2 || !moves.is_moving) {
    if (moves.number > 2) break;  // the machine is busy: the test sees nothing this time
    std::this_thread::yield();
  }
  const auto in_child = [&] {
    ::alarm(20);
    const StartLock lock;
    return !moves.is_moving.load();
  };
  EXPECT_EQ(testing::RunInForkedChild(in_child), 0);
  starter.join();
  EXPECT_GE(moves.number, 2);
}

TEST(FirstResult, IsTheFirstOfThreadsThatAskTogether) {
  FirstResult result;
  const uint64_t outer = result.Get([&] {
    uint64_t other = 0;
    Thread([&] { other = result.Get([] { return 7; }); }).Join();
    EXPECT_EQ(other, 7U);
    return 8;
  });
  EXPECT_EQ(outer, 7U);
  EXPECT_EQ(result.Get([]() -> uint64_t { throw std::logic_error("asked again"); }), 7U);
}

TEST(FirstResult, AChildDoesNotWaitForAThreadThatComputesIt) {
  FirstResult result;
  std::atomic<bool> is_computing{false};
  std::atomic<bool> may_end{false};
  std::thread thread([&] {
    result.Get([&] {
      is_computing = true;
      while (!may_end) std::this_thread::yield();
      return 1;
    });
  });
  while (!is_computing) std::this_thread::yield();
  const auto in_child = [&] {
    ::alarm(20);
    return result.Get([] { return 2; }) == 2;
  };
  EXPECT_EQ(testing::RunInForkedChild(in_child), 0);
  may_end = true;
  thread.join();
  EXPECT_EQ(result.Get([] { return 3; }), 1U);
}

}  // namespace
}  // namespace tensorbundle
