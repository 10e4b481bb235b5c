// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/prefetch.h"

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/read/row_stream.h"

namespace tensorbundle {

std::vector<size_t> InFileOrder(const Catalog& catalog, std::vector<size_t> tensors) {
  std::vector<std::pair<std::pair<uint32_t, uint64_t>, size_t>> located;
  located.reserve(tensors.size());
  for (const size_t tensor : tensors) {
    located.emplace_back(catalog.FilePosition(catalog.tensors[tensor]), tensor);
  }
  std::sort(located.begin(), located.end());
  std::transform(located.begin(), located.end(), tensors.begin(),
                 [](const auto& item) { return item.second; });
  return tensors;
}

namespace {

// Leaks the state, in a forked child: its thread cannot be joined there, and its lock and condition
// may be in use by threads that do not exist. Allocates nothing, because destructors call it.
void Leak(std::shared_ptr<StreamState> state) {
  alignas(std::shared_ptr<StreamState>) std::byte memory[sizeof(state)];
  new (memory) std::shared_ptr<StreamState>(std::move(state));
}

// Reads everything that the options ask for and delivers it, until done or stopped. Never throws:
// errors are delivered too.
void ReadStream(const Checkpoint& checkpoint, StreamState& state);

}  // namespace

PooledBuffer::PooledBuffer(std::shared_ptr<StreamState> state, PageBuffer buffer)
    : state_(std::move(state)), buffer_(std::move(buffer)) {}

PooledBuffer::~PooledBuffer() {
  if (state_ == nullptr) return;
  if (state_->IsInOwnProcess()) {
    state_->Release(std::move(buffer_));
  } else {
    Leak(std::move(state_));
  }
}

Prefetcher::Prefetcher(std::shared_ptr<const Checkpoint> checkpoint, PrefetchOptions options)
    : checkpoint_(std::move(checkpoint)),
      state_(std::make_shared<StreamState>(std::move(options))) {}

Prefetcher::~Prefetcher() {
  if (state_->IsInOwnProcess()) {
    Stop();
    return;
  }
  thread_.release();
  Leak(std::move(state_));
}

Prefetcher::Status Prefetcher::Next(std::chrono::milliseconds timeout, StreamItem* item) {
  StreamState& state = *state_;
  if (!state.IsInOwnProcess()) {
    throw std::runtime_error(
        "this stream was begun in the process that this one was forked from; begin another here");
  }
  std::unique_lock lock(state.mutex);
  if (state.is_stopped.load()) return Status::kEnd;
  if (thread_ == nullptr) StartThread();
  if (state.ready.empty() && !state.is_finished) {
    ++state.num_waiting;
    state.changed.notify_all();
    const bool came = state.changed.wait_for(lock, timeout, [&] {
      return !state.ready.empty() || state.is_finished || state.is_stopped.load();
    });
    --state.num_waiting;
    if (!came) return Status::kWaiting;
  }
  if (state.is_stopped.load()) return Status::kEnd;
  if (state.ready.empty()) {
    if (state.last_error) std::rethrow_exception(std::exchange(state.last_error, nullptr));
    return Status::kEnd;
  }
  std::unique_ptr<PooledBuffer> held;  // allocated first: if that throws, the item stays ready
  ReadyItem& front = state.ready.front();
  if (!front.error && front.buffer.data() != nullptr) {
    held = std::make_unique<PooledBuffer>(state_, std::move(front.buffer));
    ++state.num_held;
  }
  ReadyItem next = std::move(front);
  state.ready.pop_front();
  --state.num_ahead;
  state.bytes_ahead -= next.size;
  if (next.error) {
    state.changed.notify_all();
    lock.unlock();
    std::rethrow_exception(next.error);
  }
  next.item.buffer = std::move(held);
  state.changed.notify_all();
  lock.unlock();
  *item = std::move(next.item);  // may release a buffer, which takes the lock
  return Status::kReady;
}

void Prefetcher::StartThread() {
  try {
    thread_ = std::make_unique<Thread>(
        [checkpoint = checkpoint_, shared = state_] { ReadStream(*checkpoint, *shared); });
  } catch (const std::system_error& error) {
    const std::string path = checkpoint_->listing_file();
    throw IOFailure("cannot start the thread that streams " + path, path, error.code().value());
  }
}

void Prefetcher::Stop() {
  StreamState& state = *state_;
  if (!state.IsInOwnProcess()) return;
  std::unique_ptr<Thread> thread;
  {
    const std::lock_guard lock(state.mutex);
    state.is_stopped.store(true);
    thread = std::move(thread_);
    state.changed.notify_all();
  }
  if (thread != nullptr) thread->Join();
  const std::lock_guard lock(state.mutex);
  state.ready.clear();
  state.free_buffers.clear();
}

namespace {

// Reserves space for one more buffer. Returns false if there is no memory.
bool ReserveOne(std::vector<PageBuffer>* buffers) {
  try {
    buffers->reserve(buffers->size() + 1);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace

bool StreamState::MayBegin(uint64_t size) {
  if (!options.destinations.empty()) {
    // The consumer may use its array until it asks for the next one.
    const size_t held = num_waiting > 0 ? 0 : 1;
    return num_ahead + held < options.destinations.size();
  }
  if (num_ahead > 0 && (size > options.max_ahead || bytes_ahead > options.max_ahead - size)) {
    return false;
  }
  if (num_held <= 1 || consumer_keeps) return true;
  if (num_waiting > 0 && num_ahead == 0) consumer_keeps = true;
  return consumer_keeps;
}

bool StreamState::Acquire(uint64_t size, ReadyItem* next) {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return is_stopped.load() || MayBegin(size); });
  if (is_stopped.load()) return false;
  if (options.destinations.empty()) {
    next->buffer = TakeBuffer(size);
  } else {
    next->item.destination = next_destination;
    next_destination = (next_destination + 1) % options.destinations.size();
  }
  next->size = size;
  ++num_ahead;
  bytes_ahead += size;
  return true;
}

// Returns a free buffer of a suitable size, or a new one after freeing the others.
PageBuffer StreamState::TakeBuffer(uint64_t size) {
  while (!free_buffers.empty()) {
    PageBuffer last = std::move(free_buffers.back());
    free_buffers.pop_back();
    free_bytes -= last.capacity();
    if (last.capacity() >= size && last.capacity() / 2 <= size) return last;
  }
  return PageBuffer(size);
}

void StreamState::Deliver(ReadyItem next) {
  const std::lock_guard lock(mutex);
  ready.push_back(std::move(next));
  if (num_waiting > 0) changed.notify_all();
}

void StreamState::Cancel(uint64_t size) {
  const std::lock_guard lock(mutex);
  --num_ahead;
  bytes_ahead -= size;
  changed.notify_all();
}

void StreamState::Finish(std::exception_ptr error) {
  const std::lock_guard lock(mutex);
  is_finished = true;
  last_error = std::move(error);
  free_buffers.clear();
  changed.notify_all();
}

void StreamState::Release(PageBuffer buffer) {
  PageBuffer unwanted;  // freed after the lock
  const std::lock_guard lock(mutex);
  --num_held;
  const size_t capacity = buffer.capacity();
  const bool fits = bytes_ahead + free_bytes + capacity <= options.max_ahead;
  if (fits && !is_stopped.load() && !is_finished && ReserveOne(&free_buffers)) {
    free_bytes += capacity;
    free_buffers.push_back(std::move(buffer));
  } else {
    unwanted = std::move(buffer);
  }
  changed.notify_all();
}

namespace {

uint64_t StoredSize(const Checkpoint& checkpoint, const std::vector<size_t>& tensors) {
  uint64_t size = 0;
  for (const size_t tensor : tensors) {
    for (const StoredSlice& slice :
         checkpoint.catalog().Slices(checkpoint.catalog().tensors[tensor])) {
      size += slice.size;
    }
  }
  return size;
}

// Returns the exception that `body` throws, or null.
template <typename Body>
std::exception_ptr Attempt(const Body& body) {
  try {
    body();
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

// Reads one tensor in batches of rows, by one or two workers. While one worker waits for the last
// of its threads, or for the next buffer, the other one continues to read.
class TensorProducer {
 public:
  TensorProducer(StreamState& state, RowReader& reader, size_t tensor, int num_workers)
      : state_(state), reader_(reader), tensor_(tensor), num_workers_(num_workers) {
    const int64_t rows = state.options.rows;
    step_ = rows == 0 ? std::max<int64_t>(reader.num_rows(), 1) : rows;
    done_ = rows != 0 && reader.num_rows() == 0;
  }

  void Run() {
    ParallelFor(static_cast<size_t>(num_workers_), num_workers_, [this](size_t) {
      while (ReadOne()) {
      }
    });
    if (delivery_error_) std::rethrow_exception(delivery_error_);
  }

 private:
  // Reads one batch and delivers it. Returns false if no other batch is to be begun.
  bool ReadOne() {
    ReadyItem next;
    std::optional<RowBatch> batch;
    std::exception_ptr error;
    size_t turn = 0;
    {
      const std::lock_guard lock(begin_mutex_);
      if (done_ || !Acquire(&next)) {
        done_ = true;
        return false;
      }
      turn = num_begun_++;
      error = Attempt([&] { batch.emplace(reader_.Plan(BytesOf(next))); });
      done_ = done_ || error;
    }
    if (!error) error = Attempt([&] { reader_.Read(&*batch, num_workers_); });
    return Deliver(turn, std::move(next), batch ? &*batch : nullptr, std::move(error));
  }

  bool Acquire(ReadyItem* next) {
    next->item.tensor = tensor_;
    next->item.first_row = next_row_;
    next->item.num_rows = std::min(step_, reader_.num_rows() - next_row_);
    if (!state_.Acquire(static_cast<uint64_t>(next->item.num_rows) * reader_.row_size(), next)) {
      return false;
    }
    next_row_ += next->item.num_rows;
    done_ = next_row_ >= reader_.num_rows();
    return true;
  }

  MutableByteSpan BytesOf(const ReadyItem& next) const {
    if (state_.options.destinations.empty()) return {next.buffer.data(), next.size};
    return state_.options.destinations[next.item.destination].first(next.size);
  }

  // Delivers a batch after all previous ones. Cancels it if a previous one failed.
  bool Deliver(size_t turn, ReadyItem next, RowBatch* batch, std::exception_ptr error) {
    std::unique_lock lock(turn_mutex_);
    turn_changed_.wait(lock, [&] { return num_delivered_ == turn; });
    if (!failed_ && !error) error = Attempt([&] { reader_.Finish(batch); });
    if (failed_) {
      state_.Cancel(next.size);
    } else {
      const uint64_t size = next.size;
      if (error) next.buffer = {};
      next.error = error;
      failed_ = error != nullptr;
      error = Attempt([&] { state_.Deliver(std::move(next)); });
      if (error) {  // no memory to deliver it
        state_.Cancel(size);
        failed_ = true;
        delivery_error_ = std::move(error);
      }
    }
    ++num_delivered_;
    turn_changed_.notify_all();
    return !failed_;
  }

  StreamState& state_;
  RowReader& reader_;
  const size_t tensor_;
  const int num_workers_;
  int64_t step_;

  std::mutex begin_mutex_;  // guards the following, and RowReader::Plan()
  int64_t next_row_ = 0;
  bool done_;
  size_t num_begun_ = 0;

  std::mutex turn_mutex_;  // guards the following, and RowReader::Finish()
  std::condition_variable turn_changed_;
  size_t num_delivered_ = 0;
  bool failed_ = false;
  std::exception_ptr delivery_error_;  // why a batch or its error could not be delivered
};

// Reads all tensors, one after another.
class StreamProducer {
 public:
  StreamProducer(const Checkpoint& checkpoint, StreamState& state)
      : checkpoint_(checkpoint),
        state_(state),
        allow_direct_(AllowsDirect(checkpoint, StoredSize(checkpoint, state.options.tensors))) {}

  void Run() {
    for (const size_t tensor : state_.options.tensors) {
      if (state_.is_stopped.load()) return;
      std::exception_ptr error = Attempt([&] { ReadTensor(tensor); });
      if (error) DeliverAlone(tensor, std::move(error));
    }
  }

 private:
  void ReadTensor(size_t index) {
    const Tensor& tensor = checkpoint_.catalog().tensors[index];
    if (HasVariableSize(tensor.dtype)) return DeliverAlone(index, nullptr);
    const PrefetchOptions& options = state_.options;
    RowReader reader(
        checkpoint_, tensor,
        {options.threads, options.verify, allow_direct_, options.rows == 0, &state_.is_stopped});
    TensorProducer(state_, reader, index, NumWorkers(reader.row_size())).Run();
  }

  // Two if there are threads for them and two batches may be read ahead.
  int NumWorkers(uint64_t row_size) const {
    const PrefetchOptions& options = state_.options;
    if (options.rows == 0 || options.threads == 1) return 1;
    if (!options.destinations.empty()) return options.destinations.size() > 2 ? 2 : 1;
    return static_cast<uint64_t>(options.rows) * row_size <= options.max_ahead / 2 ? 2 : 1;
  }

  // Delivers an item without elements: an error, or a tensor that the consumer reads itself.
  void DeliverAlone(size_t index, std::exception_ptr error) {
    ReadyItem next;
    if (!state_.Acquire(0, &next)) return;
    next.item.tensor = index;
    next.item.has_bytes = false;
    next.error = std::move(error);
    state_.Deliver(std::move(next));
  }

  const Checkpoint& checkpoint_;
  StreamState& state_;
  const bool allow_direct_;
};

void ReadStream(const Checkpoint& checkpoint, StreamState& state) {
  state.Finish(PrepareToThrow() ? Attempt([&] { StreamProducer(checkpoint, state).Run(); })
                                : std::make_exception_ptr(std::bad_alloc()));
}

}  // namespace
}  // namespace tensorbundle
