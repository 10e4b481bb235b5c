// SPDX-License-Identifier: Apache-2.0
// Streams of arrays that are read while the one before is used.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/io/page_buffer.h"

namespace tensorbundle {

struct ReadAheadOptions {
  std::vector<size_t> tensors;  // in the order in which they are to come
  int64_t rows = 0;             // per array; 0: every tensor in one array
  uint64_t max_ahead = 0;  // bytes that may be read before they are asked for; one array always
  int threads = 1;
  bool verify = true;
  // Memory of the caller's, for `rows` rows each, to be filled in turn; empty: buffers of our own.
  // It must outlive the stream.
  std::vector<MutableByteSpan> destinations{};
};

// The tensors as they lie in their files: the order in which a stream is a sequential read.
std::vector<size_t> InFileOrder(const Catalog& catalog, std::vector<size_t> tensors);

struct StreamState;  // what the thread, the stream and the buffers that were handed out share

// A buffer that was handed out. When it is destroyed, its memory is read into again, if the stream
// still runs. May outlive the stream, and be destroyed by any thread.
class LentBuffer {
 public:
  LentBuffer(std::shared_ptr<StreamState> state, PageBuffer buffer);
  ~LentBuffer();
  LentBuffer(LentBuffer&&) = default;
  LentBuffer& operator=(LentBuffer&&) = delete;

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
  bool has_bytes = true;               // false: elements without a fixed size, which were not read
  size_t destination = 0;              // which of the caller's, if those are used
  std::unique_ptr<LentBuffer> buffer;  // else
};

// Reads on a thread of its own, which starts with the first Next. Arrays of its own making: at most
// `max_ahead` bytes, but one array always, are being read or ready, and none is begun while the
// consumer has more than one. Only when a consumer asks for more and still has two does it get more
// memory, and is known from then on to keep what it gets.
//
// Thread-safe. A forked child has no such thread: there Next throws, and everything else is left
// alone.
class ReadAhead {
 public:
  ReadAhead(std::shared_ptr<const Checkpoint> checkpoint, ReadAheadOptions options);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  enum class Status { kReady, kWaiting, kEnd };

  // The next array, if it comes within `patience`. Throws what reading it threw; after that comes
  // the next tensor. Throws IOFailure when the system has no thread for it: the call may be
  // repeated. With destinations, a call means that the array before may be overwritten.
  Status Next(std::chrono::milliseconds patience, StreamItem* item);

  // Ends the thread, soon. What was handed out stays.
  void Stop();

 private:
  void StartThread();

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::shared_ptr<StreamState> state_;
  std::unique_ptr<std::thread> thread_;
};

}  // namespace tensorbundle
