// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/read_ahead.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "tensorbundle/view/row_reader.h"
#include "tensorbundle/view/stream_state.h"

namespace tensorbundle {
namespace {

uint64_t StoredSize(const Checkpoint& checkpoint, const std::vector<size_t>& tensors) {
  uint64_t size = 0;
  for (const size_t tensor : tensors) {
    for (const Piece& piece : checkpoint.catalog().Pieces(checkpoint.catalog().tensors[tensor])) {
      size += piece.size;
    }
  }
  return size;
}

// The body of the stream's thread.
class Producer {
 public:
  Producer(const Checkpoint& checkpoint, StreamState& state)
      : checkpoint_(checkpoint),
        state_(state),
        may_bypass_(MayBypass(checkpoint, StoredSize(checkpoint, state.options.tensors))) {}

  void Run() {
    try {
      for (const size_t tensor : state_.options.tensors) {
        if (!ReadTensor(tensor)) break;
      }
    } catch (...) {
      Fail(0, std::current_exception());
    }
    state_.End();
  }

 private:
  // False when the stream was stopped.
  bool ReadTensor(size_t index) {
    const Tensor& tensor = checkpoint_.catalog().tensors[index];
    try {
      if (HasVariableSize(tensor.dtype)) return PassOver(index);
      RowReader reader(checkpoint_, tensor,
                       {state_.options.threads, state_.options.verify, may_bypass_, &state_.stop});
      return ReadRows(index, &reader);
    } catch (const StreamStopped&) {
      return false;
    } catch (...) {
      Fail(index, std::current_exception());
      return true;
    }
  }

  bool ReadRows(size_t index, RowReader* reader) {
    const int64_t rows = state_.options.rows;
    const int64_t step = rows == 0 ? std::max<int64_t>(reader->num_rows(), 1) : rows;
    if (rows != 0 && reader->num_rows() == 0) return true;
    int64_t row = 0;
    do {
      Finished next;
      next.item.tensor = index;
      next.item.first_row = row;
      next.item.num_rows = std::min(step, reader->num_rows() - row);
      const uint64_t size = static_cast<uint64_t>(next.item.num_rows) * reader->row_size();
      if (!Begin(size, &next)) return false;
      if (state_.options.destinations.empty()) {
        reader->Read({next.buffer.data(), size});
      } else {
        reader->Read(state_.options.destinations[next.item.destination].first(size));
      }
      row += next.item.num_rows;
      Deliver(std::move(next));
    } while (row < reader->num_rows());
    return true;
  }

  // The consumer reads such a tensor itself.
  bool PassOver(size_t index) {
    Finished next;
    next.item.tensor = index;
    next.item.has_bytes = false;
    if (!Begin(0, &next)) return false;
    Deliver(std::move(next));
    return true;
  }

  bool Begin(uint64_t size, Finished* next) {
    begun_ = state_.Begin(size, next);
    begun_size_ = size;
    return begun_;
  }

  void Deliver(Finished next) {
    begun_ = false;
    state_.Deliver(std::move(next));
  }

  // In place of the array that was begun, if one was.
  void Fail(size_t index, std::exception_ptr error) {
    Finished next;
    if (!begun_ && !Begin(0, &next)) return;
    next.item.tensor = index;
    next.size = begun_size_;
    next.error = std::move(error);
    Deliver(std::move(next));
  }

  const Checkpoint& checkpoint_;
  StreamState& state_;
  const bool may_bypass_;
  bool begun_ = false;
  uint64_t begun_size_ = 0;
};

}  // namespace

std::vector<size_t> InFileOrder(const Catalog& catalog, std::vector<size_t> tensors) {
  const auto place = [&](size_t tensor) {
    std::pair<uint32_t, uint64_t> first{UINT32_MAX, UINT64_MAX};
    for (const Piece& piece : catalog.Pieces(catalog.tensors[tensor])) {
      first = std::min(first, {piece.file, piece.offset});
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

LentBuffer::LentBuffer(std::shared_ptr<StreamState> state, ElementBuffer buffer)
    : state_(std::move(state)), buffer_(std::move(buffer)) {}

LentBuffer::~LentBuffer() {
  if (state_ == nullptr) return;
  if (state_->InOwnProcess()) {
    state_->Return(std::move(buffer_));
  } else {
    new std::shared_ptr<StreamState>(std::move(state_));  // see ~ReadAhead
  }
}

ReadAhead::ReadAhead(std::shared_ptr<const Checkpoint> checkpoint, ReadAheadOptions options)
    : checkpoint_(std::move(checkpoint)),
      state_(std::make_shared<StreamState>(std::move(options))) {}

ReadAhead::~ReadAhead() {
  if (state_->InOwnProcess()) {
    Stop();
    return;
  }
  // The thread is not in this process, so that it cannot be joined, and whoever waited for the
  // condition or held the lock still seems to: both are left as they are.
  thread_.release();
  new std::shared_ptr<StreamState>(std::move(state_));
}

ReadAhead::Status ReadAhead::Next(std::chrono::milliseconds patience, StreamItem* item) {
  StreamState& state = *state_;
  if (!state.InOwnProcess()) {
    throw std::runtime_error(
        "this stream was begun in the process that this one was forked from; begin another here");
  }
  std::unique_lock lock(state.mutex);
  if (state.stop.load()) return Status::kEnd;
  if (thread_ == nullptr) {
    thread_ = std::make_unique<std::thread>(
        [checkpoint = checkpoint_, shared = state_] { Producer(*checkpoint, *shared).Run(); });
  }
  if (state.ready.empty() && !state.ended) {
    ++state.waiting;
    state.changed.notify_all();
    const bool came = state.changed.wait_for(
        lock, patience, [&] { return !state.ready.empty() || state.ended || state.stop.load(); });
    --state.waiting;
    if (!came) return Status::kWaiting;
  }
  if (state.ready.empty()) return Status::kEnd;
  Finished next = std::move(state.ready.front());
  state.ready.pop_front();
  --state.num_ahead;
  state.bytes_ahead -= next.size;
  if (next.error) {
    state.changed.notify_all();
    lock.unlock();
    std::rethrow_exception(next.error);
  }
  if (next.buffer.data() != nullptr) {
    ++state.num_lent;
    next.item.buffer = std::make_unique<LentBuffer>(state_, std::move(next.buffer));
  }
  state.changed.notify_all();
  lock.unlock();
  *item = std::move(next.item);  // gives back what was in it, for which the lock must be free
  return Status::kReady;
}

void ReadAhead::Stop() {
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

}  // namespace tensorbundle
