// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/interrupt.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "tensorbundle/base/parallel.h"

namespace tensorbundle {
namespace {

using namespace std::chrono_literals;

struct Interrupted {};

[[noreturn]] void Interrupt() { throw Interrupted(); }
void DoNotInterrupt() {}

void Wait() { std::this_thread::sleep_for(2ms); }

TEST(Interrupt, NothingHappensWithoutAScope) {
  for (int i = 0; i < 40; ++i) {
    CheckInterrupt();
    Wait();
  }
}

TEST(Interrupt, ChecksAfterAnInterval) {
  const InterruptScope scope(&Interrupt);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THROW(
      while (true) {
        CheckInterrupt();
        Wait();
      },
      Interrupted);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 50ms);
}

TEST(Interrupt, ShortWorkIsNotInterrupted) {
  const InterruptScope scope(&Interrupt);
  CheckInterrupt();
  CheckInterrupt();
}

TEST(Interrupt, InnerScopeReplacesOuter) {
  const InterruptScope outer(&Interrupt);
  {
    const InterruptScope inner(&DoNotInterrupt);
    for (int i = 0; i < 40; ++i) {
      CheckInterrupt();
      Wait();
    }
  }
  EXPECT_THROW(
      while (true) {
        CheckInterrupt();
        Wait();
      },
      Interrupted);
}

TEST(Interrupt, LoopEndsBetweenIndices) {
  const InterruptScope scope(&Interrupt);
  for (const int threads : {1, 2}) {
    std::atomic<int> calls{0};
    EXPECT_THROW(ParallelFor(100'000, threads,
                             [&](size_t) {
                               ++calls;
                               Wait();
                             }),
                 Interrupted);
    EXPECT_LT(calls, 10'000);
  }
}

TEST(Interrupt, LoopOfOneIndexIsNotChecked) {
  const InterruptScope scope(&Interrupt);
  CheckInterrupt();
  std::this_thread::sleep_for(60ms);
  ParallelFor(1, 1, [](size_t) {});
}

TEST(Interrupt, FailureOfOneThreadStopsLongBodiesOfOthers) {
  const InterruptScope scope(&DoNotInterrupt);
  std::atomic<bool> has_begun{false};
  try {
    ParallelFor(2, 2, [&](size_t i) {
      if (i == 1) {
        while (!has_begun) Wait();
        throw std::invalid_argument("the first");
      }
      has_begun = true;
      while (true) {
        CheckInterrupt();
        Wait();
      }
    });
    FAIL();
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(std::string(error.what()), "the first");
  }
  CheckInterrupt();  // the loop's flag is forgotten
}

TEST(Interrupt, FailureDoesNotStopBodiesWithoutAScope) {
  std::atomic<bool> has_failed{false};
  std::atomic<int> checks{0};
  EXPECT_THROW(ParallelFor(2, 2,
                           [&](size_t i) {
                             if (i == 1) {
                               has_failed = true;
                               throw std::invalid_argument("the first");
                             }
                             while (!has_failed) Wait();
                             for (int k = 0; k < 20; ++k, ++checks) {
                               CheckInterrupt();
                               Wait();
                             }
                           }),
               std::invalid_argument);
  EXPECT_EQ(checks, 20);
}

// A thread of ParallelFor() has no scope of its own. Its loops stop with those of its caller.
TEST(Interrupt, LoopsInsideThreadsAreInterruptible) {
  EXPECT_FALSE(IsInterruptible());
  const InterruptScope scope(&DoNotInterrupt);
  EXPECT_TRUE(IsInterruptible());
  std::atomic<int> num_started{0};
  const auto caller = std::this_thread::get_id();
  std::atomic<int> num_others{0};
  ParallelFor(2, 2, [&](size_t) {
    ++num_started;
    while (num_started < 2) Wait();  // one index per thread
    EXPECT_TRUE(IsInterruptible());
    if (std::this_thread::get_id() != caller) ++num_others;
  });
  EXPECT_EQ(num_others, 1);
}

}  // namespace
}  // namespace tensorbundle
