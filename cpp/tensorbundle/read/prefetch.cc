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
  const auto place = [&](size_t tensor) {
    std::pair<uint32_t, uint64_t> first{UINT32_MAX, UINT64_MAX};
    for (const StoredSlice& slice : catalog.Slices(catalog.tensors[tensor])) {
      first = std::min(first, {slice.file, slice.offset});
    }
    return first;
  };
  std::vector<std::pair<std::pair<uint32_t, uint64_t>, size_t>> placed;
  placed.reserve(tensors.size());
  for (const size_t tensor : tensors) placed.emplace_back(place(tensor), tensor);
  std::sort(placed.begin(), placed.end());
  std::transform(placed.begin(), placed.end(), tensors.begin(),
                 [](const auto& item) { return item.second; });
  return tensors;
}

namespace {

// For a forked child. The thread is not in its process, so that it cannot be joined, and whoever
// waited for the condition or held the lock still seems to: the state is never destroyed. Nor is
// memory taken, since destructors call this.
void Abandon(std::shared_ptr<StreamState> state) {
  alignas(std::shared_ptr<StreamState>) std::byte place[sizeof(state)];
  new (place) std::shared_ptr<StreamState>(std::move(state));
}

}  // namespace

PooledBuffer::PooledBuffer(std::shared_ptr<StreamState> state, PageBuffer buffer)
    : state_(std::move(state)), buffer_(std::move(buffer)) {}

PooledBuffer::~PooledBuffer() {
  if (state_ == nullptr) return;
  if (state_->InOwnProcess()) {
    state_->Return(std::move(buffer_));
  } else {
    Abandon(std::move(state_));
  }
}

Prefetcher::Prefetcher(std::shared_ptr<const Checkpoint> checkpoint, PrefetchOptions options)
    : checkpoint_(std::move(checkpoint)),
      state_(std::make_shared<StreamState>(std::move(options))) {}

Prefetcher::~Prefetcher() {
  if (state_->InOwnProcess()) {
    Stop();
    return;
  }
  thread_.release();
  Abandon(std::move(state_));
}

Prefetcher::Status Prefetcher::Next(std::chrono::milliseconds timeout, StreamItem* item) {
  StreamState& state = *state_;
  if (!state.InOwnProcess()) {
    throw std::runtime_error(
        "this stream was begun in the process that this one was forked from; begin another here");
  }
  std::unique_lock lock(state.mutex);
  if (state.stop.load()) return Status::kEnd;
  if (thread_ == nullptr) StartThread();
  if (state.ready.empty() && !state.ended) {
    ++state.waiting;
    state.changed.notify_all();
    const bool came = state.changed.wait_for(
        lock, timeout, [&] { return !state.ready.empty() || state.ended || state.stop.load(); });
    --state.waiting;
    if (!came) return Status::kWaiting;
  }
  if (state.stop.load()) return Status::kEnd;
  if (state.ready.empty()) {
    if (state.last_error) std::rethrow_exception(std::exchange(state.last_error, nullptr));
    return Status::kEnd;
  }
  std::unique_ptr<PooledBuffer> lent;  // made first: what there is no memory for stays ready
  ReadyItem& front = state.ready.front();
  if (!front.error && front.buffer.data() != nullptr) {
    lent = std::make_unique<PooledBuffer>(state_, std::move(front.buffer));
    ++state.num_lent;
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
  next.item.buffer = std::move(lent);
  state.changed.notify_all();
  lock.unlock();
  *item = std::move(next.item);  // gives back what was in it, for which the lock must be free
  return Status::kReady;
}

void Prefetcher::StartThread() {
  try {
    thread_ = std::make_unique<std::thread>(
        [checkpoint = checkpoint_, shared = state_] { ProduceItems(*checkpoint, *shared); });
  } catch (const std::system_error& error) {
    const std::string path = checkpoint_->listing_file();
    throw IOFailure("cannot start the thread that streams " + path, path, error.code().value());
  }
}

void Prefetcher::Stop() {
  StreamState& state = *state_;
  if (!state.InOwnProcess()) return;
  std::unique_ptr<std::thread> thread;
  {
    const std::lock_guard lock(state.mutex);
    state.stop.store(true);
    thread = std::move(thread_);
    state.changed.notify_all();
  }
  if (thread != nullptr) thread->join();
  const std::lock_guard lock(state.mutex);
  state.ready.clear();
  state.spare.clear();
}

namespace {

// Makes room for one more. False: there is no memory for that.
bool Reserve(std::vector<PageBuffer>* buffers) {
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
    // The array that the consumer has is its own until it asks for the next.
    const size_t held = waiting > 0 ? 0 : 1;
    return num_ahead + held < options.destinations.size();
  }
  if (num_ahead > 0 && (size > options.max_ahead || bytes_ahead > options.max_ahead - size)) {
    return false;
  }
  if (num_lent <= 1 || keeps) return true;
  if (waiting > 0 && num_ahead == 0) keeps = true;
  return keeps;
}

bool StreamState::Begin(uint64_t size, ReadyItem* next) {
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return stop.load() || MayBegin(size); });
  if (stop.load()) return false;
  if (options.destinations.empty()) {
    next->buffer = Take(size);
  } else {
    next->item.destination = next_destination;
    next_destination = (next_destination + 1) % options.destinations.size();
  }
  next->size = size;
  ++num_ahead;
  bytes_ahead += size;
  return true;
}

// A spare buffer that fits, or a new one in place of all of them.
PageBuffer StreamState::Take(uint64_t size) {
  while (!spare.empty()) {
    PageBuffer last = std::move(spare.back());
    spare.pop_back();
    spare_bytes -= last.capacity();
    if (last.capacity() >= size && last.capacity() / 2 <= size) return last;
  }
  return PageBuffer(size);
}

void StreamState::Deliver(ReadyItem next) {
  const std::lock_guard lock(mutex);
  ready.push_back(std::move(next));
  if (waiting > 0) changed.notify_all();
}

void StreamState::Drop(uint64_t size) {
  const std::lock_guard lock(mutex);
  --num_ahead;
  bytes_ahead -= size;
  changed.notify_all();
}

void StreamState::End(std::exception_ptr error) {
  const std::lock_guard lock(mutex);
  ended = true;
  last_error = std::move(error);
  spare.clear();
  changed.notify_all();
}

void StreamState::Return(PageBuffer buffer) {
  PageBuffer unwanted;  // freed after the lock is
  const std::lock_guard lock(mutex);
  --num_lent;
  const size_t capacity = buffer.capacity();
  const bool fits = bytes_ahead + spare_bytes + capacity <= options.max_ahead;
  if (fits && !stop.load() && !ended && Reserve(&spare)) {
    spare_bytes += capacity;
    spare.push_back(std::move(buffer));
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

// What `body` throws, or null.
template <typename Body>
std::exception_ptr Attempt(const Body& body) {
  try {
    body();
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

// One tensor in chunks, read by one lane or by two that take turns: while one waits for the last of
// its threads, or for the next buffer, the other goes on reading.
class ChunkProducer {
 public:
  ChunkProducer(StreamState& state, RowReader& reader, size_t tensor, int lanes)
      : state_(state), reader_(reader), tensor_(tensor), lanes_(lanes) {
    const int64_t rows = state.options.rows;
    step_ = rows == 0 ? std::max<int64_t>(reader.num_rows(), 1) : rows;
    done_ = rows != 0 && reader.num_rows() == 0;
  }

  void Run() {
    ParallelFor(static_cast<size_t>(lanes_), lanes_, [this](size_t) {
      while (ReadOne()) {
      }
    });
    if (lost_) std::rethrow_exception(lost_);
  }

 private:
  // A chunk from its beginning to its delivery. False when no other is to be begun.
  bool ReadOne() {
    ReadyItem next;
    std::optional<RowBatch> batch;
    std::exception_ptr error;
    size_t turn = 0;
    {
      const std::lock_guard lock(begin_mutex_);
      if (done_ || !Begin(&next)) {
        done_ = true;
        return false;
      }
      turn = num_begun_++;
      error = Attempt([&] { batch.emplace(reader_.Plan(BytesOf(next))); });
      done_ = done_ || error;
    }
    if (!error) error = Attempt([&] { reader_.Read(&*batch, lanes_); });
    return Deliver(turn, std::move(next), batch ? &*batch : nullptr, std::move(error));
  }

  bool Begin(ReadyItem* next) {
    next->item.tensor = tensor_;
    next->item.first_row = next_row_;
    next->item.num_rows = std::min(step_, reader_.num_rows() - next_row_);
    if (!state_.Begin(static_cast<uint64_t>(next->item.num_rows) * reader_.row_size(), next)) {
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

  // When all chunks before it are delivered. What comes after an error is dropped.
  bool Deliver(size_t turn, ReadyItem next, RowBatch* batch, std::exception_ptr error) {
    std::unique_lock lock(turn_mutex_);
    turned_.wait(lock, [&] { return num_finished_ == turn; });
    if (!failed_ && !error) error = Attempt([&] { reader_.Finish(batch); });
    if (failed_) {
      state_.Drop(next.size);
    } else {
      const uint64_t size = next.size;
      if (error) next.buffer = {};
      next.error = error;
      failed_ = error != nullptr;
      error = Attempt([&] { state_.Deliver(std::move(next)); });
      if (error) {  // no memory to deliver it: the next call of Next() throws it
        state_.Drop(size);
        failed_ = true;
        lost_ = std::move(error);
      }
    }
    ++num_finished_;
    turned_.notify_all();
    return !failed_;
  }

  StreamState& state_;
  RowReader& reader_;
  const size_t tensor_;
  const int lanes_;
  int64_t step_;

  std::mutex begin_mutex_;  // guards the following, and Plan
  int64_t next_row_ = 0;
  bool done_;
  size_t num_begun_ = 0;

  std::mutex turn_mutex_;  // guards the following, and Finish
  std::condition_variable turned_;
  size_t num_finished_ = 0;
  bool failed_ = false;
  std::exception_ptr lost_;  // why a chunk or its error could not be delivered
};

// All tensors, one after another.
class Producer {
 public:
  Producer(const Checkpoint& checkpoint, StreamState& state)
      : checkpoint_(checkpoint),
        state_(state),
        allow_direct_(AllowsDirect(checkpoint, StoredSize(checkpoint, state.options.tensors))) {}

  void Run() {
    for (const size_t tensor : state_.options.tensors) {
      if (state_.stop.load()) return;
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
        {options.threads, options.verify, allow_direct_, options.rows == 0, &state_.stop});
    ChunkProducer(state_, reader, index, LanesFor(reader.row_size())).Run();
  }

  // Two where there are threads for them and two chunks may be on their way.
  int LanesFor(uint64_t row_size) const {
    const PrefetchOptions& options = state_.options;
    if (options.rows == 0 || options.threads == 1) return 1;
    if (!options.destinations.empty()) return options.destinations.size() > 2 ? 2 : 1;
    return static_cast<uint64_t>(options.rows) * row_size <= options.max_ahead / 2 ? 2 : 1;
  }

  // An item without elements: an error, or a tensor that the consumer reads itself.
  void DeliverAlone(size_t index, std::exception_ptr error) {
    ReadyItem next;
    if (!state_.Begin(0, &next)) return;
    next.item.tensor = index;
    next.item.has_bytes = false;
    next.error = std::move(error);
    state_.Deliver(std::move(next));
  }

  const Checkpoint& checkpoint_;
  StreamState& state_;
  const bool allow_direct_;
};

}  // namespace

void ProduceItems(const Checkpoint& checkpoint, StreamState& state) {
  state.End(PrepareToThrow() ? Attempt([&] { Producer(checkpoint, state).Run(); })
                             : std::make_exception_ptr(std::bad_alloc()));
}

}  // namespace tensorbundle
