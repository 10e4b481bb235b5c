// SPDX-License-Identifier: Apache-2.0
// Streams of arrays that are read while the one before is used.
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
#include <thread>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/io/page_buffer.h"

namespace tensorbundle {

struct PrefetchOptions {
  std::vector<size_t> tensors;  // in the order in which they are to come
  int64_t rows = 0;             // per array; 0: every tensor in one array
  uint64_t max_ahead = 0;  // bytes that may be read before they are asked for; one array always
  int threads = 1;
  bool verify = true;
  // Memory of the caller's, for `rows` rows each, to be filled in turn; empty: buffers of our own.
  // It must outlive the stream.
  std::vector<MutableByteSpan> destinations{};
};

// Returns the tensors in the order of their files and offsets, in which a stream reads
// sequentially.
std::vector<size_t> InFileOrder(const Catalog& catalog, std::vector<size_t> tensors);

struct StreamState;  // what the thread, the stream and the buffers that were handed out share

// A buffer that was handed out. When it is destroyed, its memory is read into again, if the stream
// still runs. May outlive the stream, and be destroyed by any thread.
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
  size_t destination = 0;  // which of the caller's, if those are used
  std::unique_ptr<PooledBuffer> buffer;  // else
};

// Reads on a thread of its own, which starts with the first Next. Arrays of its own making: at most
// `max_ahead` bytes, but one array always, are being read or ready, and none is begun while the
// consumer has more than one. Only when a consumer asks for more and still has two does it get more
// memory, and is known from then on to keep what it gets.
//
// Thread-safe. A forked child has no such thread: there Next throws, and everything else is left
// alone.
class Prefetcher {
 public:
  Prefetcher(std::shared_ptr<const Checkpoint> checkpoint, PrefetchOptions options);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  enum class Status { kReady, kWaiting, kEnd };

  // The next array, if it comes within `timeout`. Throws what reading it threw; after that comes
  // the next tensor. Throws IOFailure when the system has no thread for it: the call may be
  // repeated. With destinations, a call means that the array before may be overwritten.
  Status Next(std::chrono::milliseconds timeout, StreamItem* item);

  // Ends the thread, soon. What was handed out stays.
  void Stop();

 private:
  void StartThread();

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::shared_ptr<StreamState> state_;
  std::unique_ptr<std::thread> thread_;
};

// The inside of read/prefetch.h: when the next array may be begun, and in which memory. Holds no
// checkpoint: an array that somebody keeps must not keep files open.

// An item for the consumer, or the error that takes its place.
struct ReadyItem {
  StreamItem item;
  PageBuffer buffer;
  uint64_t size = 0;
  std::exception_ptr error;
};

struct StreamState {
  explicit StreamState(PrefetchOptions wanted) : options(std::move(wanted)) {}

  // The reader's side. Waits until `size` bytes may be read, and says where to; false: stop.
  bool Begin(uint64_t size, ReadyItem* next);
  void Deliver(ReadyItem next);
  void Drop(uint64_t size);            // what was begun will not be delivered
  void End(std::exception_ptr error);  // null when all was delivered

  // Takes back what a PooledBuffer had.
  void Return(PageBuffer buffer);

  // A process forked from the stream's has none of its threads, and maybe locked locks.
  bool InOwnProcess() const { return ::getpid() == process; }

  const PrefetchOptions options;
  const pid_t process = ::getpid();
  std::atomic<bool> stop{false};

  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by the mutex:
  std::deque<ReadyItem> ready;
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

// What the thread of a stream does.

// Reads everything that the state's options ask for and delivers it, until done or stopped. Never
// throws: errors are delivered too.
void ProduceItems(const Checkpoint& checkpoint, StreamState& state);

}  // namespace tensorbundle
