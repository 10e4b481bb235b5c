// SPDX-License-Identifier: Apache-2.0
// The inside of view/read_ahead.h: when the next array may be begun, and in which memory. Holds no
// checkpoint: an array that somebody keeps must not keep files open.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <utility>
#include <vector>

#include "tensorbundle/view/read_ahead.h"

namespace tensorbundle {

// An item on its way to the consumer, or why there is none.
struct Finished {
  StreamItem item;
  PageBuffer buffer;
  uint64_t size = 0;
  std::exception_ptr error;
};

struct StreamState {
  explicit StreamState(ReadAheadOptions wanted) : options(std::move(wanted)) {}

  // The reader's side. Waits until `size` bytes may be read, and says where to; false: stop.
  bool Begin(uint64_t size, Finished* next);
  void Deliver(Finished next);
  void Drop(uint64_t size);            // what was begun will not be delivered
  void End(std::exception_ptr error);  // null when all was delivered

  // Takes back what a LentBuffer had.
  void Return(PageBuffer buffer);

  // A process forked from the stream's has none of its threads, and maybe locked locks.
  bool InOwnProcess() const { return ::getpid() == process; }

  const ReadAheadOptions options;
  const pid_t process = ::getpid();
  std::atomic<bool> stop{false};

  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by the mutex:
  std::deque<Finished> ready;
  bool ended = false;
  std::exception_ptr last_error;  // to come out once, at the end
  bool keeps = false;             // the consumer keeps what it gets
  int waiting = 0;                // consumers inside Next
  size_t num_ahead = 0;           // arrays being read or ready
  uint64_t bytes_ahead = 0;       // of those
  size_t num_lent = 0;            // arrays handed out and still in use
  size_t next_destination = 0;
  std::vector<PageBuffer> spare;
  uint64_t spare_bytes = 0;

 private:
  bool MayBegin(uint64_t size);
  PageBuffer Take(uint64_t size);
};

}  // namespace tensorbundle
