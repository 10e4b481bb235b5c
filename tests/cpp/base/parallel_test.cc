// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/parallel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <mutex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tensorbundle/base/parallel_internal.h"

namespace tensorbundle {
namespace {

TEST(Parallel, EveryIndexOnce) {
  for (const size_t count : {size_t{0}, size_t{1}, size_t{2}, size_t{1000}}) {
    for (const int threads : {INT_MIN, -1, 0, 1, 2, 8}) {
      std::vector<std::atomic<int>> calls(count);
      ParallelFor(count, threads, [&](size_t i) { calls[i].fetch_add(1); });
      for (const auto& n : calls) EXPECT_EQ(n.load(), 1);
    }
  }
}

TEST(Parallel, OneThreadRunsInTheCallerInAscendingOrder) {
  const std::thread::id caller = std::this_thread::get_id();
  std::vector<size_t> order;
  std::mutex mutex;
  ParallelFor(100, 1, [&](size_t i) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    const std::lock_guard<std::mutex> lock(mutex);
    order.push_back(i);
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // another thread would start
  });
  EXPECT_EQ(order.size(), 100U);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

// Each body waits until `count` bodies run at the same time.
class Meeting {
 public:
  explicit Meeting(int count) : count_(count) {}

  // Returns whether the others came within ten seconds.
  bool Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return arrived_ >= count_; });
  }

 private:
  const int count_;
  int arrived_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
};

TEST(Parallel, AsManyThreadsAsAskedForRunAtOnce) {
  for (const int threads : {2, 3, 8}) {
    Meeting meeting(threads);
    ParallelFor(static_cast<size_t>(threads), threads,
                [&](size_t) { EXPECT_TRUE(meeting.Wait()) << threads << " threads"; });
  }
}

// Another thread would take the only item before the caller does, because the caller starts it
// first.
TEST(Parallel, NoMoreThreadsThanItems) {
  for (int round = 0; round < 50; ++round) {
    ParallelFor(1, 8, [caller = std::this_thread::get_id()](size_t) {
      EXPECT_EQ(std::this_thread::get_id(), caller);
    });
  }
  Meeting meeting(3);
  ParallelFor(3, 1'000'000, [&](size_t) { EXPECT_TRUE(meeting.Wait()); });
}

TEST(Parallel, NothingBeginsAfterAnException) {
  std::atomic<size_t> done{0};
  EXPECT_THROW(ParallelFor(1000, 2,
                           [&](size_t i) {
                             if (i == 0) throw std::runtime_error("at zero");
                             ++done;
                             std::this_thread::sleep_for(std::chrono::milliseconds(1));
                           }),
               std::runtime_error);
  EXPECT_LT(done.load(), 900U);
}

TEST(Parallel, ThrowsTheFirstExceptionAfterAllThreadsEnded) {
  for (const int threads : {1, 2, 8}) {
    std::atomic<int> running{0};
    std::atomic<size_t> done{0};
    try {
      ParallelFor(100'000, threads, [&](size_t i) {
        ++running;
        ++done;
        if (i == 10) {
          --running;
          throw std::runtime_error("at ten");
        }
        --running;
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()), "at ten");
      EXPECT_EQ(running.load(), 0);
    }
    if (threads == 1) {
      EXPECT_EQ(done.load(), 11U);
    }
  }
}

TEST(Parallel, AllThrowAtOnce) {
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(
        ParallelFor(8, 8, [](size_t i) { throw std::invalid_argument(std::to_string(i)); }),
        std::invalid_argument);
  }
}

TEST(Parallel, RethrowsOtherTypesThanStdException) {
  EXPECT_THROW(ParallelFor(4, 4, [](size_t) { throw 7; }), int);
}

TEST(Parallel, Nested) {
  std::atomic<size_t> calls{0};
  ParallelFor(8, 4, [&](size_t) { ParallelFor(8, 4, [&](size_t) { ++calls; }); });
  EXPECT_EQ(calls.load(), 64U);
  EXPECT_THROW(ParallelFor(4, 4,
                           [](size_t) {
                             ParallelFor(4, 4, [](size_t) { throw std::out_of_range("inner"); });
                           }),
               std::out_of_range);
}

TEST(Parallel, WritesOfThreadsAreVisible) {
  std::vector<size_t> values(10'000);
  ParallelFor(values.size(), 4, [&](size_t i) { values[i] = i; });
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], i);
}

TEST(Parallel, AvailableProcessors) {
  EXPECT_GE(AvailableProcessors(), 1);
  EXPECT_LE(AvailableProcessors(), 1 << 20);
}

TEST(Parallel, ProcessorsOfQuota) {
  const auto processors = [](const std::string& cpu_max) {
    std::istringstream file(cpu_max);
    return ProcessorsOfQuota(file);
  };
  EXPECT_EQ(processors("200000 100000"), 2);
  EXPECT_EQ(processors("150000 100000"), 2) << "rounded up";
  EXPECT_EQ(processors("1000 100000"), 1);
  EXPECT_EQ(processors("1e300 1"), 1'000'000);
  for (const char* none : {"", "max 100000", "100000", "100000 0", "100000 -5", "many 100000"}) {
    EXPECT_EQ(processors(none), 0) << none;
  }
}

}  // namespace
}  // namespace tensorbundle
