// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/read_ahead.h"

#include <algorithm>
#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/view/stream_producer.h"
#include "tensorbundle/view/stream_state.h"

namespace tensorbundle {

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

namespace {

// For a forked child. The thread is not in its process, so that it cannot be joined, and whoever
// waited for the condition or held the lock still seems to: the state is never destroyed. Nor is
// memory taken, since destructors call this.
void Abandon(std::shared_ptr<StreamState> state) {
  alignas(std::shared_ptr<StreamState>) std::byte place[sizeof(state)];
  new (place) std::shared_ptr<StreamState>(std::move(state));
}

}  // namespace

LentBuffer::LentBuffer(std::shared_ptr<StreamState> state, PageBuffer buffer)
    : state_(std::move(state)), buffer_(std::move(buffer)) {}

LentBuffer::~LentBuffer() {
  if (state_ == nullptr) return;
  if (state_->InOwnProcess()) {
    state_->Return(std::move(buffer_));
  } else {
    Abandon(std::move(state_));
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
  thread_.release();
  Abandon(std::move(state_));
}

ReadAhead::Status ReadAhead::Next(std::chrono::milliseconds patience, StreamItem* item) {
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
        lock, patience, [&] { return !state.ready.empty() || state.ended || state.stop.load(); });
    --state.waiting;
    if (!came) return Status::kWaiting;
  }
  if (state.stop.load()) return Status::kEnd;
  if (state.ready.empty()) {
    if (state.last_error) std::rethrow_exception(std::exchange(state.last_error, nullptr));
    return Status::kEnd;
  }
  std::unique_ptr<LentBuffer> lent;  // made first: what there is no memory for stays ready
  Finished& front = state.ready.front();
  if (!front.error && front.buffer.data() != nullptr) {
    lent = std::make_unique<LentBuffer>(state_, std::move(front.buffer));
    ++state.num_lent;
  }
  Finished next = std::move(front);
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

void ReadAhead::StartThread() {
  try {
    thread_ = std::make_unique<std::thread>(
        [checkpoint = checkpoint_, shared = state_] { ProduceItems(*checkpoint, *shared); });
  } catch (const std::system_error& error) {
    const std::string path = checkpoint_->listing_file();
    throw IOFailure("cannot start the thread that streams " + path, path, error.code().value());
  }
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
