// SPDX-License-Identifier: Apache-2.0
// Prefetching stream of tensors: a thread reads the next arrays while the consumer uses the current
// one.
//
// Arrays in buffers of the stream: at most `max_ahead` bytes, but always one array, are being read
// or ready. No array is begun while the consumer has more than one. If the consumer asks for more
// and still has two, it is known to keep what it gets, and from then on it gets new memory.
// Otherwise the memory of an array is reused as soon as the consumer releases it.
#pragma once

#include <sys/types.h>
#include <unistd.h>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/fork_lock.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/io/page_buffer.h"

namespace tensorbundle {

struct PrefetchOptions {
  std::vector<size_t> tensors;  // in the order of the stream
  int64_t rows = 0;             // per array; 0: each tensor is one array
  uint64_t max_ahead = 0;       // bytes that may be read before they are asked for
  int threads = 1;
  bool verify = true;
  // Memory of the caller for `rows` rows each, to be filled in turn. Empty: buffers of the stream.
  // Lifetime: must outlive the stream.
  std::vector<MutableByteSpan> destinations{};
};

// Sorts tensors by file and offset: in this order, a stream reads each file sequentially.
std::vector<size_t> InFileOrder(const Catalog& catalog, std::vector<size_t> tensors);

struct StreamState;

// A buffer that the consumer holds. Its memory is reused after the buffer is destroyed, if the
// stream still runs. Lifetime: may outlive the stream. Threads: any thread may destroy it.
class PooledBuffer {
 public:
  PooledBuffer(std::shared_ptr<StreamState> state, PageBuffer buffer);
  ~PooledBuffer();
  PooledBuffer(PooledBuffer&&) = default;
  PooledBuffer& operator=(PooledBuffer&&) = delete;

  uint8_t* data() const { return buffer_.data(); }

 private:
  std::shared_ptr<StreamState> state_;
  PageBuffer buffer_;
};

// Some rows of a tensor.
struct StreamItem {
  size_t tensor = 0;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  bool has_bytes = true;   // false: elements without a fixed size, which were not read
  size_t destination = 0;  // index in PrefetchOptions::destinations, if there are any
  std::unique_ptr<PooledBuffer> buffer;  // the rows, if there are no destinations
};

// Reads in a thread of its own, which starts with the first Next().
// Threads: any number. In a forked child, which does not have the thread, Next() throws and the
// other functions do nothing.
class Prefetcher {
 public:
  Prefetcher(std::shared_ptr<const Checkpoint> checkpoint, PrefetchOptions options);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  enum class Status { kReady, kWaiting, kEnd };

  // Sets `item` to the next array and returns kReady; returns kWaiting if no array is ready
  // within `timeout`. If there are destinations, the call allows the previous array to be
  // overwritten.
  //
  // Throws the error of reading an array; the stream continues with the next tensor. Throws
  // IOFailure if the system cannot start the thread; the call may be repeated. Throws
  // std::runtime_error in a forked child.
  Status Next(std::chrono::milliseconds timeout, StreamItem* item);

  // Ends the thread soon. Buffers of the consumer remain valid.
  void Stop();

 private:
  void StartThread();

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::shared_ptr<StreamState> state_;
  std::unique_ptr<Thread> thread_;
};

// An item for the consumer, or an error in its place.
struct ReadyItem {
  StreamItem item;
  PageBuffer buffer;
  uint64_t size = 0;
  std::exception_ptr error;
};

// The state that the reading thread, the stream and the buffers of the consumer share. Decides when
// the next array may be begun, and in which memory. Holds no checkpoint, because a buffer of the
// consumer must not keep files open.
struct StreamState {
  explicit StreamState(PrefetchOptions wanted) : options(std::move(wanted)) {}

  // For the reading thread. Waits until `size` bytes may be read and provides memory for them.
  // Returns false if the stream was stopped.
  bool Acquire(uint64_t size, ReadyItem* next);
  void Deliver(ReadyItem next);
  void Cancel(uint64_t size);             // undoes Acquire(): the array will not be delivered
  void Finish(std::exception_ptr error);  // null if everything was delivered

  // For the consumer: takes back a buffer.
  void Release(PageBuffer buffer);

  // False in a forked child: it has none of the threads, and its locks may be locked forever.
  bool IsInOwnProcess() const { return ::getpid() == process; }

  const PrefetchOptions options;
  const pid_t process = ::getpid();
  std::atomic<bool> is_stopped{false};

  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by the mutex:
  std::deque<ReadyItem> ready;
  bool is_finished = false;
  std::exception_ptr last_error;  // to be thrown once, at the end
  bool consumer_keeps = false;    // the consumer keeps the arrays that it gets
  int num_waiting = 0;            // consumers inside Next()
  size_t num_ahead = 0;           // arrays being read or ready
  uint64_t bytes_ahead = 0;       // in those arrays
  size_t num_held = 0;            // buffers of the consumer
  size_t next_destination = 0;
  std::vector<PageBuffer> free_buffers;
  uint64_t free_bytes = 0;

 private:
  bool MayBegin(uint64_t size);
  PageBuffer TakeBuffer(uint64_t size);
};

}  // namespace tensorbundle
