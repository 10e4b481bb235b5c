// SPDX-License-Identifier: Apache-2.0
// The class behind Tensor.chunks and Checkpoint.stream. Its thread never touches Python.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/held.h"
#include "bindings/pybind.h"
#include "tensorbundle/read/prefetch.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/row_stream.h"

namespace tensorbundle {
namespace {

// How long a wait may keep Ctrl-C from being heard.
constexpr std::chrono::milliseconds kPatience(50);

// A Prefetcher and what its items become arrays with.
class Stream : public HeldByPython {
 public:
  Stream(std::shared_ptr<const Checkpoint> checkpoint, PrefetchOptions options, py::tuple dtypes,
         std::vector<py::array> outs)
      : checkpoint_(checkpoint),
        dtypes_(std::move(dtypes)),
        outs_(std::move(outs)),
        stream_(std::make_unique<Prefetcher>(std::move(checkpoint), std::move(options))) {}

  ~Stream() { Close(); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // (tensor, first row, rows, array); for what was put into the caller's memory the number of that
  // in place of the array, for strings None. Throws StopIteration.
  py::tuple Next() {
    if (lost_.load()) {
      PyErr_SetString(PyExc_MemoryError,
                      "there was no memory for an array of this stream, which is lost; begin "
                      "another stream");
      throw py::error_already_set();
    }
    StreamItem item;
    while (true) {
      const Prefetcher::Status status = [&] {
        const py::gil_scoped_release release;
        return stream_->Next(kPatience, &item);
      }();
      if (status == Prefetcher::Status::kReady) break;
      if (status == Prefetcher::Status::kEnd) throw py::stop_iteration();
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    try {
      const py::object array = ArrayOf(&item);
      return py::make_tuple(item.tensor, item.first_row, item.num_rows, array);
    } catch (...) {
      lost_.store(true);  // or whoever goes on would miss rows and not know it
      throw;
    }
  }

  void Close() {
    const py::gil_scoped_release release;  // the thread may be in the middle of a read
    stream_->Stop();
  }

 private:
  py::object ArrayOf(StreamItem* item) {
    if (!item->has_bytes) return py::none();
    if (!outs_.empty()) return py::int_(item->destination);
    const Catalog& catalog = checkpoint_->catalog();
    const Tensor& tensor = catalog.tensors[item->tensor];
    const std::span<const int64_t> dims = catalog.Shape(tensor);
    std::vector<py::ssize_t> shape(dims.begin(), dims.end());
    if (!shape.empty()) shape[0] = item->num_rows;
    const auto number = static_cast<size_t>(tensor.dtype);  // known, since it was read
    const auto dtype = dtypes_[std::min(number, dtypes_.size() - 1)].cast<py::dtype>();
    CheckItemSize(dtype, RequireKnownType(tensor).item_size);
    const py::capsule owner(item->buffer.get(),
                            [](void* p) { delete static_cast<PooledBuffer*>(p); });
    const PooledBuffer* buffer = item->buffer.release();  // now held by `owner`
    return py::array(dtype, shape, buffer->data(), owner);
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  py::tuple dtypes_;
  std::vector<py::array> outs_;  // keeps the caller's memory
  std::unique_ptr<Prefetcher> stream_;
  std::atomic<bool> lost_{false};
};

std::shared_ptr<Stream> OpenStream(const BoundCheckpoint& bound, std::vector<size_t> tensors,
                                   int64_t rows, uint64_t max_ahead, std::vector<py::array> outs,
                                   py::tuple dtypes, int threads, bool verify) {
  const std::shared_ptr<const Checkpoint>& checkpoint = bound.core;
  if (rows < 0) throw std::invalid_argument("rows must not be negative");
  const size_t num_tensors = checkpoint->catalog().tensors.size();
  PrefetchOptions options{std::move(tensors), rows, max_ahead, threads, verify};
  for (const size_t tensor : options.tensors) {
    if (tensor >= num_tensors) throw std::out_of_range("no tensor " + std::to_string(tensor));
  }
  if (dtypes.empty()) throw std::invalid_argument("no dtypes");
  for (py::array& out : outs) {
    const Tensor& tensor = checkpoint->catalog().tensors[options.tensors.at(0)];
    const RowReader reader(*checkpoint, tensor, {});
    options.destinations.push_back(Destination(out));
    if (options.destinations.back().size() < static_cast<uint64_t>(rows) * reader.row_size()) {
      throw std::invalid_argument("the destination array is too small");
    }
  }
  return std::make_shared<Stream>(checkpoint, std::move(options), std::move(dtypes),
                                  std::move(outs));
}

}  // namespace

void RegisterStreaming(py::module_& module) {
  py::class_<Stream, std::shared_ptr<Stream>>(module, "Stream", py::is_final(), MadeByCore())
      .def_static("open", &OpenStream, "checkpoint"_a, "tensors"_a, py::kw_only(), "rows"_a,
                  "max_ahead"_a, "outs"_a, "dtypes"_a, "threads"_a, "verify"_a)
      .def("next", &Stream::Next)
      .def("close", &Stream::Close);
  module.def("check_rows", Of(+[](const Checkpoint& checkpoint, size_t index) {
               const Tensor& tensor = checkpoint.catalog().tensors.at(index);
               return RowReader(checkpoint, tensor, {}).row_size();
             }),
             "checkpoint"_a, "index"_a);
  module.def("in_file_order", Of(+[](const Checkpoint& checkpoint, std::vector<size_t> tensors) {
               for (const size_t tensor : tensors) checkpoint.catalog().tensors.at(tensor);
               return InFileOrder(checkpoint.catalog(), std::move(tensors));
             }),
             "checkpoint"_a, "tensors"_a);
}

}  // namespace tensorbundle
