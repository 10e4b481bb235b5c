// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/stream_state.h"

#include <new>
#include <utility>
#include <vector>

namespace tensorbundle {

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

bool StreamState::Begin(uint64_t size, Finished* next) {
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

void StreamState::Deliver(Finished next) {
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

}  // namespace tensorbundle
