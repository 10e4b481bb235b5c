// SPDX-License-Identifier: Apache-2.0
// The class behind tensorbundle.Checkpoint. Everything here converts arguments, lets go of the GIL,
// calls the core, and converts the result; tensors are named by their index in the catalog.
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/held.h"
#include "bindings/listing.h"
#include "bindings/progress.h"
#include "bindings/pybind.h"
#include "bindings/text.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"
#include "tensorbundle/v1/v1_checkpoint.h"

namespace tensorbundle {
namespace {

IoMode ParseMode(const std::string& io) {
  if (io == "auto") return IoMode::kAuto;
  if (io == "mmap") return IoMode::kMmap;
  if (io == "pread") return IoMode::kPread;
  if (io == "direct") return IoMode::kDirect;
  throw std::invalid_argument("io must be 'auto', 'mmap', 'pread' or 'direct', not '" + io + "'");
}

const Tensor& TensorAt(const Checkpoint& self, size_t index) {
  return self.catalog().tensors.at(index);
}

const StoredSlice& SliceAt(const Checkpoint& self, size_t index, size_t slice) {
  const std::span<const StoredSlice> slices = self.catalog().Slices(TensorAt(self, index));
  if (slice >= slices.size()) throw std::out_of_range("no slice " + std::to_string(slice));
  return slices[slice];
}

py::object PathOf(const std::string& path) {
  PyObject* text =
      PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size()));
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(text);
}

// (starts, lengths, file, offset, nbytes) of each stored slice.
py::list SlicesOf(const Checkpoint& self, size_t index) {
  const Catalog& catalog = self.catalog();
  const Tensor& tensor = TensorAt(self, index);
  py::list rows;
  for (const StoredSlice& slice : catalog.Slices(tensor)) {
    const Box box = catalog.BoxOf(tensor, slice);
    py::tuple starts(box.size());
    py::tuple lengths(box.size());
    for (size_t axis = 0; axis < box.size(); ++axis) {
      starts[axis] = box[axis].start;
      lengths[axis] = box[axis].length;
    }
    rows.append(py::make_tuple(starts, lengths, PathOf(catalog.files[slice.file]), slice.offset,
                               slice.size));
  }
  return rows;
}

// Why a tensor cannot be read whole and compared with its checksums.
struct Problem {
  const char* kind = nullptr;  // in two or three words; null: it can
  std::string message;
};

Problem ProblemOf(const Checkpoint& self, size_t index) {
  const Tensor& tensor = TensorAt(self, index);
  const char* damage = "damaged file";
  try {
    RequireKnownType(tensor);
    for (const StoredSlice& slice : self.catalog().Slices(tensor)) {
      self.CheckSlice(tensor, slice, Compared::kYes);
    }
    damage = "stored in part";
    if (tensor.num_elements > 0) {
      FindOverlaps(self.catalog(), tensor, WholeBox(self.catalog().Shape(tensor)));
    }
  } catch (const CheckpointNotFoundError& error) {
    return {"missing file", error.what()};
  } catch (const IOFailure& error) {
    return {"unreadable file",
            std::string(error.what()) + ": " + std::strerror(error.error_number())};
  } catch (const UnsupportedError& error) {
    return {"not supported", error.what()};
  } catch (const Error& error) {
    return {damage, error.what()};
  }
  return {};
}

py::object ProblemText(const Checkpoint& self, size_t index) {
  Problem problem;
  {
    const py::gil_scoped_release release;
    problem = ProblemOf(self, index);
  }
  if (problem.kind == nullptr) return py::none();
  return py::make_tuple(problem.kind, TextOf(problem.message));
}

// An array, or a str that says why there can be none.
py::object ToArrayOrReason(const TensorView& view, const py::dtype& dtype,
                           std::span<const int64_t> shape, Access access) {
  if (!view) return py::str(view.why_not);
  return ArrayOver(view.owner, view.bytes, dtype, shape, access);
}

py::object View(const Checkpoint& self, size_t index, const py::dtype& dtype) {
  const Tensor& tensor = TensorAt(self, index);
  const TensorView view = ViewTensor(self, tensor);
  if (view) CheckItemSize(dtype, RequireKnownType(tensor).item_size);
  return ToArrayOrReason(view, dtype, self.catalog().Shape(tensor), Access::kReadOnly);
}

py::object ViewOneSlice(const Checkpoint& self, size_t index, size_t slice_index,
                        const py::dtype& dtype) {
  const Tensor& tensor = TensorAt(self, index);
  const StoredSlice& slice = SliceAt(self, index, slice_index);
  const TensorView view = ViewSlice(self, tensor, slice);
  if (view) CheckItemSize(dtype, RequireKnownType(tensor).item_size);
  const std::vector<int64_t> shape = Lengths(self.catalog().BoxOf(tensor, slice));
  return ToArrayOrReason(view, dtype, shape, Access::kReadOnly);
}

py::object CopyOnWrite(const Checkpoint& self, size_t index, const py::dtype& dtype) {
  const Tensor& tensor = TensorAt(self, index);
  const TensorView view = CopyOnWriteTensor(self, tensor);
  if (view) CheckItemSize(dtype, RequireKnownType(tensor).item_size);
  return ToArrayOrReason(view, dtype, self.catalog().Shape(tensor), Access::kWritable);
}

Box BoxIn(const Checkpoint& self, const Tensor& tensor, const std::vector<int64_t>& starts,
          const std::vector<int64_t>& lengths) {
  const std::span<const int64_t> shape = self.catalog().Shape(tensor);
  if (starts.size() != shape.size() || lengths.size() != shape.size()) {
    throw std::invalid_argument("a box needs one start and one length per axis");
  }
  Box box;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (starts[axis] < 0 || lengths[axis] < 0 || starts[axis] > shape[axis] ||
        lengths[axis] > shape[axis] - starts[axis]) {
      throw std::out_of_range("the box leaves shape " + ShapeToString(shape));
    }
    box.push_back({starts[axis], lengths[axis]});
  }
  return box;
}

// (slice, its starts, its lengths, starts and lengths of what the box takes of it) for each slice
// that a box takes elements from. Starts are those in the tensor.
py::list SlicesOfBox(const Checkpoint& self, size_t index, const std::vector<int64_t>& starts,
                     const std::vector<int64_t>& lengths) {
  const Tensor& tensor = TensorAt(self, index);
  const Box box = BoxIn(self, tensor, starts, lengths);
  if (Volume(box) == 0) return py::list();
  const std::vector<SliceOverlap> overlaps = [&] {
    const py::gil_scoped_release release;
    return FindOverlaps(self.catalog(), tensor, box);
  }();
  const StoredSlice* first = self.catalog().Slices(tensor).data();
  py::list rows;
  for (const SliceOverlap& overlap : overlaps) {
    rows.append(py::make_tuple(overlap.slice - first, Starts(overlap.slice_box),
                               Lengths(overlap.slice_box), Starts(overlap.intersection),
                               Lengths(overlap.intersection)));
  }
  return rows;
}

void Require(const Checkpoint& self, size_t index, const std::vector<int64_t>& starts,
             const std::vector<int64_t>& lengths) {
  const Tensor& tensor = TensorAt(self, index);
  const Box box = BoxIn(self, tensor, starts, lengths);
  const py::gil_scoped_release release;
  RequireBox(self, tensor, box);
}

void Read(const Checkpoint& self, size_t index, const std::vector<int64_t>& starts,
          const std::vector<int64_t>& lengths, py::array out, int threads, bool verify) {
  const Tensor& tensor = TensorAt(self, index);
  const Box box = BoxIn(self, tensor, starts, lengths);
  const MutableByteSpan destination = Destination(out);
  // `out` is referenced by this frame, so its memory stays while the GIL is away.
  const py::gil_scoped_release release;
  ReadBox(self, tensor, box, destination, {threads, verify});
}

py::list ReadStringSlice(const Checkpoint& self, size_t index, size_t slice_index, bool verify) {
  const Tensor& tensor = TensorAt(self, index);
  const StoredSlice& slice = SliceAt(self, index, slice_index);
  const StringElements elements = [&] {
    const py::gil_scoped_release release;
    return ReadStrings(self, tensor, slice, verify);
  }();
  py::list list(elements.size());
  for (size_t i = 0; i < elements.size(); ++i) {
    const std::string_view text = elements[i];
    list[i] = py::bytes(text.data(), text.size());
  }
  return list;
}

// The bytes that were read, and (tensor index, file, offset, nbytes, message, cause, error number)
// of everything that is wrong.
py::tuple Verify(const Checkpoint& self, const std::vector<size_t>& indices, int threads,
                 py::object callback) {
  const Catalog& catalog = self.catalog();
  uint64_t total = 0;
  for (const size_t index : indices) {
    for (const StoredSlice& slice : catalog.Slices(TensorAt(self, index))) total += slice.size;
  }
  Progress progress(std::move(callback), total);
  const VerifyResult result = [&] {
    const py::gil_scoped_release release;
    return VerifyTensors(self, indices, threads, [&](uint64_t bytes) { progress.Add(bytes); });
  }();
  progress.Finish();
  py::list rows;
  for (const Corruption& corruption : result.corruptions) {
    const StoredSlice none;
    const StoredSlice& slice = corruption.slice == nullptr ? none : *corruption.slice;
    const std::string file =
        corruption.slice == nullptr ? self.listing_file() : catalog.files[slice.file];
    rows.append(py::make_tuple(corruption.tensor, PathOf(file), slice.offset, slice.size,
                               TextOf(corruption.message), TextOf(corruption.cause),
                               corruption.error_number));
  }
  return py::make_tuple(result.num_bytes, rows);
}

py::list Notes(const Checkpoint& self) {
  py::list warnings;
  for (const std::string& note : StorageWarnings(self)) warnings.append(TextOf(note));
  return warnings;
}

py::object Find(const Checkpoint& self, const std::string& name) {
  const size_t index = self.catalog().Find(name);
  if (index == Catalog::kNotFound) return py::none();
  return py::int_(index);
}

}  // namespace

void RegisterCheckpoint(py::module_& module) {
  py::class_<BoundCheckpoint, std::shared_ptr<BoundCheckpoint>>(module, "Checkpoint",
                                                                py::is_final(), MadeByCore())
      .def_static(
          "open_bundle",
          [](const std::string& prefix, const std::string& io) {
            const IoMode mode = ParseMode(io);
            const py::gil_scoped_release release;
            return std::make_shared<BoundCheckpoint>(Checkpoint::OpenBundle(prefix, mode));
          },
          "prefix"_a, "io"_a)
      .def_static(
          "open_v1",
          [](const std::vector<std::string>& files, const std::string& io) {
            const IoMode mode = ParseMode(io);
            const py::gil_scoped_release release;
            return std::make_shared<BoundCheckpoint>(OpenV1(files, mode));
          },
          "files"_a, "io"_a)
      .def("__len__", Of(+[](const Checkpoint& self) { return self.catalog().tensors.size(); }))
      .def_property_readonly("index_checksum",
                             Of(+[](const Checkpoint& self) { return self.index_checksum(); }))
      .def_property_readonly("warnings", Of(&Notes))
      .def_property_readonly("big_endian",
                             Of(+[](const Checkpoint& self) { return self.catalog().big_endian; }))
      .def("find", Of(&Find), "name"_a)
      .def("names", Of(+[](const Checkpoint& self) { return Names(self.catalog()); }))
      .def("listing", Of(+[](const Checkpoint& self, const py::list& names) {
             return Listing(self.catalog(), names);
           }),
           "names"_a)
      .def("shape_map", Of(+[](const Checkpoint& self, const py::list& names) {
             return ShapeMap(self.catalog(), names);
           }),
           "names"_a)
      .def("type_map",
           Of(+[](const Checkpoint& self, const py::list& names, const py::tuple& types) {
             return TypeMap(self.catalog(), names, types);
           }),
           "names"_a, "dtypes"_a)
      .def("name",
           Of(+[](const Checkpoint& self, size_t index) { return NameOf(TensorAt(self, index)); }),
           "index"_a)
      .def("shape", Of(+[](const Checkpoint& self, size_t index) {
             return ShapeOf(self.catalog(), TensorAt(self, index));
           }),
           "index"_a)
      .def("type_number", Of(+[](const Checkpoint& self, size_t index) {
             return static_cast<int32_t>(TensorAt(self, index).dtype);
           }),
           "index"_a)
      .def("slices", Of(&SlicesOf), "index"_a)
      .def("problem", Of(&ProblemText), "index"_a)
      .def("view", Of(&View), "index"_a, "dtype"_a)
      .def("view_slice", Of(&ViewOneSlice), "index"_a, "slice"_a, "dtype"_a)
      .def("copy_on_write", Of(&CopyOnWrite), "index"_a, "dtype"_a)
      .def("slices_of_box", Of(&SlicesOfBox), "index"_a, "starts"_a, "lengths"_a)
      .def("require_box", Of(&Require), "index"_a, "starts"_a, "lengths"_a)
      .def("read", Of(&Read), "index"_a, "starts"_a, "lengths"_a, "out"_a, py::kw_only(),
           "threads"_a, "verify"_a)
      .def("read_strings", Of(&ReadStringSlice), "index"_a, "slice"_a, py::kw_only(), "verify"_a)
      .def("verify", Of(&Verify), "indices"_a, py::kw_only(), "threads"_a,
           "progress"_a = py::none());
}

}  // namespace tensorbundle
