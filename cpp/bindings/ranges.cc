// SPDX-License-Identifier: Apache-2.0
// What a read touches, without reading.
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/held.h"
#include "bindings/pybind.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/locate.h"

namespace tensorbundle {
namespace {

using RangeArray = py::array_t<uint64_t, py::array::c_style>;
using RowArray = py::array_t<int64_t, py::array::c_style>;
constexpr py::ssize_t kColumns = 3;  // file number, offset, size

RangeArray ToArray(const std::vector<FileRange>& ranges) {
  RangeArray array({static_cast<py::ssize_t>(ranges.size()), kColumns});
  uint64_t* to = array.mutable_data();
  for (const FileRange& range : ranges) {
    *to++ = range.file;
    *to++ = range.offset;
    *to++ = range.size;
  }
  return array;
}

RangeArray OfBox(const Checkpoint& checkpoint, size_t index, const std::vector<int64_t>& starts,
                 const std::vector<int64_t>& lengths) {
  const Tensor& tensor = checkpoint.catalog().tensors.at(index);
  const std::span<const int64_t> shape = checkpoint.catalog().Shape(tensor);
  if (starts.size() != shape.size() || lengths.size() != shape.size()) {
    throw std::invalid_argument("a box needs one start and one length per axis");
  }
  Box box;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (starts[axis] < 0 || lengths[axis] < 0 || lengths[axis] > shape[axis] - starts[axis]) {
      throw std::out_of_range("the box leaves shape " + ShapeToString(shape));
    }
    box.push_back({starts[axis], lengths[axis]});
  }
  const std::vector<FileRange> ranges = [&] {
    const py::gil_scoped_release release;
    return RangesOfBox(checkpoint, tensor, box);
  }();
  return ToArray(ranges);
}

RangeArray OfRows(const Checkpoint& checkpoint, size_t index, const RowArray& rows) {
  const Tensor& tensor = checkpoint.catalog().tensors.at(index);
  const std::span<const int64_t> shape = checkpoint.catalog().Shape(tensor);
  if (shape.empty()) throw std::invalid_argument("a scalar has no rows");
  const std::span<const int64_t> ids(rows.data(), static_cast<size_t>(rows.size()));
  for (const int64_t id : ids) {
    if (id < 0 || id >= shape[0]) throw std::out_of_range("no row " + std::to_string(id));
  }
  const std::vector<FileRange> ranges = [&] {
    const py::gil_scoped_release release;  // `rows` is referenced by the caller's frame
    return RangesOfRows(checkpoint, tensor, ids);
  }();
  return ToArray(ranges);
}

py::dict Inspect(const Checkpoint& checkpoint, size_t index, const RangeArray& array) {
  const Tensor& tensor = checkpoint.catalog().tensors.at(index);
  if (array.ndim() != 2 || array.shape(1) != kColumns) {
    throw std::invalid_argument("ranges have three columns");
  }
  std::vector<FileRange> ranges;
  for (py::ssize_t i = 0; i < array.shape(0); ++i) {
    ranges.push_back({static_cast<uint32_t>(array.at(i, 0)), array.at(i, 1), array.at(i, 2)});
  }
  const RangeStats facts = [&] {
    const py::gil_scoped_release release;
    return InspectRanges(checkpoint, tensor, ranges);
  }();
  return py::dict("slices"_a = facts.num_slices, "whole"_a = facts.num_whole,
                  "verified"_a = facts.num_verified, "bytes"_a = facts.num_bytes,
                  "touched"_a = facts.num_touched, "probed"_a = facts.num_probed,
                  "resident"_a = facts.num_resident, "direct"_a = facts.prefers_direct);
}

py::list FilePaths(const Checkpoint& checkpoint) {
  py::list paths;
  for (const std::string& path : checkpoint.catalog().files) {
    PyObject* text =
        PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size()));
    if (text == nullptr) throw py::error_already_set();
    paths.append(py::reinterpret_steal<py::object>(text));
  }
  return paths;
}

}  // namespace

void RegisterRanges(py::module_& module) {
  module.def("ranges_of_box", Of(&OfBox), "checkpoint"_a, "index"_a, "starts"_a, "lengths"_a);
  module.def("ranges_of_rows", Of(&OfRows), "checkpoint"_a, "index"_a, "rows"_a);
  module.def("inspect_ranges", Of(&Inspect), "checkpoint"_a, "index"_a, "ranges"_a);
  module.def("file_paths", Of(&FilePaths), "checkpoint"_a);
}

}  // namespace tensorbundle
