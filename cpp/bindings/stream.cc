// SPDX-License-Identifier: Apache-2.0
// The class _core.Stream: tensors, or rows of one, that a thread reads ahead. The thread calls
// Python only to read a remote store.
#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/checkpoint.h"
#include "tensorbundle/read/prefetch.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/row_stream.h"

namespace tensorbundle {
namespace {

// The longest wait between two checks for Ctrl-C.
constexpr std::chrono::milliseconds kTimeout(50);

// A Prefetcher, and the arrays that it fills.
class Stream : public HeldByPython {
 public:
  Stream(std::shared_ptr<const Checkpoint> checkpoint, PrefetchOptions options,
         std::vector<py::array> outs)
      : checkpoint_(checkpoint),
        outs_(std::move(outs)),
        stream_(std::make_unique<Prefetcher>(std::move(checkpoint), std::move(options))) {}

  ~Stream() {
    if (IsFinalizing() && checkpoint_->files().has_opener()) {
      // The thread may wait for Python, which does not come back, so it cannot be waited for.
      stream_.release();  // NOLINT
      return;
    }
    Close();
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Returns (index of the tensor, first row, rows, array). In place of the array: the number of the
  // caller's array that was filled, or None for strings. Throws StopIteration. If it throws
  // MemoryError, the next call may skip rows.
  py::tuple Next() {
    StreamItem item;
    while (true) {
      const Prefetcher::Status status = [&] {
        const GilReleased released;
        return stream_->Next(kTimeout, &item);
      }();
      if (status == Prefetcher::Status::kReady) break;
      if (status == Prefetcher::Status::kEnd) throw py::stop_iteration();
      RaiseSignals();
    }
    const py::object array = ArrayOf(&item);
    return py::make_tuple(item.tensor, item.first_row, item.num_rows, array);
  }

  void Close() {
    const GilReleased released;  // the thread may be in the middle of a read
    stream_->Stop();
  }

 private:
  py::object ArrayOf(StreamItem* item) {
    if (!item->has_bytes) return py::none();
    if (!outs_.empty()) return py::int_(item->destination);
    const Catalog& catalog = checkpoint_->catalog();
    const Tensor& tensor = catalog.tensors[item->tensor];
    const std::span<const int64_t> dims = catalog.Shape(tensor);
    std::vector<int64_t> shape(dims.begin(), dims.end());
    if (!shape.empty()) shape[0] = item->num_rows;
    const py::capsule owner(item->buffer.get(),
                            [](void* p) { delete static_cast<PooledBuffer*>(p); });
    const PooledBuffer* buffer = item->buffer.release();  // now held by `owner`
    return ArrayOver(owner, buffer->data(), DtypeOf(static_cast<int32_t>(tensor.dtype)), shape,
                     nullptr, Access::kWritable);
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::vector<py::array> outs_;  // keeps the caller's memory
  std::unique_ptr<Prefetcher> stream_;
};

// Whole tensors, in the order of their files.
std::shared_ptr<Stream> OfTensors(const BoundCheckpoint& bound, const py::list& tensors,
                                  uint64_t max_ahead) {
  std::shared_ptr<const Checkpoint> checkpoint = bound.Opened();
  std::vector<size_t> indices;
  for (const py::handle each : tensors) {
    indices.push_back(each.cast<const BoundTensor&>().index);
    (void)checkpoint->catalog().tensors.at(indices.back());  // throws for another index
  }
  PrefetchOptions options{InFileOrder(checkpoint->catalog(), std::move(indices)), 0, max_ahead,
                          bound.threads(), bound.verify()};
  return std::make_shared<Stream>(std::move(checkpoint), std::move(options),
                                  std::vector<py::array>());
}

// `rows` rows of a tensor at a time, in arrays of the stream's, or in `outs` in turn.
std::shared_ptr<Stream> OfRows(const BoundTensor& bound, int64_t rows, uint64_t max_ahead,
                               std::vector<py::array> outs) {
  const OpenTensor t(bound);
  if (rows < 1) throw std::invalid_argument("rows must be at least 1");
  PrefetchOptions options{
      {bound.index}, rows, max_ahead, bound.checkpoint->threads(), bound.checkpoint->verify()};
  for (py::array& out : outs) {
    const RowReader reader(*t.checkpoint, t.tensor, {});
    options.destinations.push_back(Destination(out));
    if (options.destinations.back().size() < static_cast<uint64_t>(rows) * reader.row_size()) {
      throw std::invalid_argument("the destination array is too small");
    }
  }
  return std::make_shared<Stream>(t.checkpoint, std::move(options), std::move(outs));
}

}  // namespace

void RegisterStream(py::module_& module) {
  py::class_<Stream, std::shared_ptr<Stream>>(module, "Stream", py::is_final(), MadeByCore())
      .def_static("of_tensors", &OfTensors)
      .def_static("of_rows", &OfRows)
      .def("next", &Stream::Next)
      .def("close", &Stream::Close);
}

}  // namespace tensorbundle
