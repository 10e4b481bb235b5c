// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/stream_producer.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "tensorbundle/base/parallel.h"
#include "tensorbundle/view/row_reader.h"

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
    Finished next;
    std::optional<RowReader::Chunk> chunk;
    std::exception_ptr error;
    size_t turn = 0;
    {
      const std::lock_guard lock(begin_mutex_);
      if (done_ || !Begin(&next)) {
        done_ = true;
        return false;
      }
      turn = num_begun_++;
      error = Attempt([&] { chunk.emplace(reader_.Plan(BytesOf(next))); });
      done_ = done_ || error;
    }
    if (!error) error = Attempt([&] { reader_.Run(&*chunk, lanes_); });
    return Deliver(turn, std::move(next), chunk ? &*chunk : nullptr, std::move(error));
  }

  bool Begin(Finished* next) {
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

  MutableByteSpan BytesOf(const Finished& next) const {
    if (state_.options.destinations.empty()) return {next.buffer.data(), next.size};
    return state_.options.destinations[next.item.destination].first(next.size);
  }

  // When all chunks before it are delivered. What comes after an error is dropped.
  bool Deliver(size_t turn, Finished next, RowReader::Chunk* chunk, std::exception_ptr error) {
    std::unique_lock lock(turn_mutex_);
    turned_.wait(lock, [&] { return num_finished_ == turn; });
    if (!failed_ && !error) error = Attempt([&] { reader_.Finish(chunk); });
    if (failed_) {
      state_.Drop(next.size);
    } else {
      const uint64_t size = next.size;
      if (error) next.buffer = {};
      next.error = error;
      failed_ = error != nullptr;
      error = Attempt([&] { state_.Deliver(std::move(next)); });
      if (error) {  // no memory to deliver it: whoever waits for its turn must hear of that
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
    const ReadAheadOptions& options = state_.options;
    RowReader reader(
        checkpoint_, tensor,
        {options.threads, options.verify, allow_direct_, options.rows == 0, &state_.stop});
    ChunkProducer(state_, reader, index, LanesFor(reader.row_size())).Run();
  }

  // Two where there are threads for them and two chunks may be on their way.
  int LanesFor(uint64_t row_size) const {
    const ReadAheadOptions& options = state_.options;
    if (options.rows == 0 || options.threads == 1) return 1;
    if (!options.destinations.empty()) return options.destinations.size() > 2 ? 2 : 1;
    return static_cast<uint64_t>(options.rows) * row_size <= options.max_ahead / 2 ? 2 : 1;
  }

  // An item without elements: an error, or a tensor that the consumer reads itself.
  void DeliverAlone(size_t index, std::exception_ptr error) {
    Finished next;
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
