// SPDX-License-Identifier: Apache-2.0
// The class _core.Checkpoint: opening, names, listings, verification.
//
// Listings are written against Python's C API: a checkpoint may list hundreds of thousands of
// tensors, and the time of a listing is the time of creating its objects.
#include "bindings/checkpoint.h"

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/progress.h"
#include "bindings/remote.h"
#include "tensorbundle/base/fork_lock.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/verify.h"
#include "tensorbundle/v1/v1_checkpoint.h"

namespace tensorbundle {

RowTable::RowTable(std::shared_ptr<const Checkpoint> opened, size_t index)
    : checkpoint(std::move(opened)),
      tensor(checkpoint->catalog().tensors.at(index)),
      layout(LayOutRows(*checkpoint, tensor)) {}

BoundCheckpoint::BoundCheckpoint(std::shared_ptr<const Checkpoint> opened, std::string name,
                                 bool verify, int threads)
    : name_(std::move(name)),
      verify_(verify),
      threads_(threads),
      num_tensors_(opened->catalog().tensors.size()),
      processors_(AvailableProcessors()),
      opened_(std::move(opened)) {}

std::shared_ptr<const Checkpoint> BoundCheckpoint::Opened() const {
  std::shared_ptr<const Checkpoint> opened;
  {
    const ForkLock lock;
    opened = opened_;
  }
  if (!opened) throw py::value_error("the checkpoint " + name_ + " is closed");
  return opened;
}

std::shared_ptr<const RowTable> BoundCheckpoint::RowsOf(size_t index) const {
  {
    const ForkLock lock;
    const auto found = opened_ ? rows_.find(index) : rows_.end();
    if (found != rows_.end()) return found->second;
  }
  const auto table = std::make_shared<const RowTable>(Opened(), index);
  if (!table->layout.has_errors) {
    const ForkLock lock;
    if (opened_) rows_.emplace(index, table);
  }
  return table;
}

void BoundCheckpoint::Close() {
  std::shared_ptr<const Checkpoint> opened;
  std::unordered_map<size_t, std::shared_ptr<const RowTable>> rows;
  const ForkLock lock;
  opened.swap(opened_);  // destroyed after the lock is released
  rows.swap(rows_);
}

bool BoundCheckpoint::closed() const {
  const ForkLock lock;
  return opened_ == nullptr;
}

namespace {
std::atomic<int> default_threads{0};
}  // namespace

void SetDefaultThreads(int threads) { default_threads.store(threads); }

int DefaultThreads() { return default_threads.load(); }

int BoundCheckpoint::threads() const {
  if (threads_ != 0) return threads_;
  const int threads = DefaultThreads();
  return threads != 0 ? threads : processors_;
}

namespace {

py::tuple ShapeOf(const Catalog& catalog, const Tensor& tensor) {
  py::tuple shape(tensor.rank);
  Py_ssize_t axis = 0;
  for (const int64_t dim : catalog.Shape(tensor)) {
    PyTuple_SET_ITEM(shape.ptr(), axis++, Steal(PyLong_FromLongLong(dim)).release().ptr());
  }
  return shape;
}

int32_t NumberOf(const Tensor& tensor) { return static_cast<int32_t>(tensor.dtype); }

}  // namespace

BoundTensor::BoundTensor(std::shared_ptr<const BoundCheckpoint> bound, const Checkpoint& opened,
                         size_t position)
    : BoundTensor(std::move(bound), position, NumberOf(opened.catalog().tensors[position]),
                  TextOf(opened.catalog().tensors[position].name),
                  ShapeOf(opened.catalog(), opened.catalog().tensors[position])) {}

BoundTensor::BoundTensor(std::shared_ptr<const BoundCheckpoint> bound, size_t position,
                         int32_t number, py::str text, py::tuple dims)
    : checkpoint(std::move(bound)),
      index(position),
      type_number(number),
      name(std::move(text)),
      shape(std::move(dims)),
      dtype(py::reinterpret_borrow<py::object>(DtypeOf(type_number))) {}

namespace {

using Bound = std::shared_ptr<BoundCheckpoint>;

// A function of a Checkpoint as one that Python calls.
template <typename Result, typename... Args>
auto Of(Result (*function)(const Checkpoint&, Args...)) {
  return [function](const BoundCheckpoint& self, Args... args) -> Result {
    return function(*self.Opened(), std::forward<Args>(args)...);
  };
}

IoMode ParseMode(const std::string& io) {
  if (io == "auto") return IoMode::kAuto;
  if (io == "mmap") return IoMode::kMmap;
  if (io == "pread") return IoMode::kPread;
  if (io == "direct") return IoMode::kDirect;
  throw std::invalid_argument("io must be 'auto', 'mmap', 'pread' or 'direct', not '" + io + "'");
}

// ---- Names

// The key that a str or bytes object stands for; nothing for a str that no bytes stand for.
class Key {
 public:
  // Lifetime: `name` outlives the key.
  explicit Key(py::handle name) {
    if (PyBytes_Check(name.ptr())) {
      bytes_ = {PyBytes_AS_STRING(name.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(name.ptr()))};
      return;
    }
    if (!PyUnicode_Check(name.ptr())) {
      throw py::type_error("a tensor's name must be a str or bytes, not " +
                           std::string(Py_TYPE(name.ptr())->tp_name));
    }
    Py_ssize_t size = 0;
    if (const char* utf8 = PyUnicode_AsUTF8AndSize(name.ptr(), &size)) {
      bytes_ = {utf8, static_cast<size_t>(size)};
      return;
    }
    // Lone surrogates stand for bytes that are not UTF-8.
    ClearEncodeError();
    encoded_ = py::reinterpret_steal<py::object>(
        PyUnicode_AsEncodedString(name.ptr(), "utf-8", "surrogateescape"));
    if (encoded_) {
      bytes_ = {PyBytes_AS_STRING(encoded_.ptr()),
                static_cast<size_t>(PyBytes_GET_SIZE(encoded_.ptr()))};
    } else {
      ClearEncodeError();
    }
  }

  const std::optional<std::string_view>& bytes() const { return bytes_; }

 private:
  static void ClearEncodeError() {
    if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError) == 0) throw py::error_already_set();
    PyErr_Clear();
  }

  std::optional<std::string_view> bytes_;
  py::object encoded_;
};

size_t FindIndex(const Checkpoint& checkpoint, py::handle name) {
  const Key key(name);
  return key.bytes() ? checkpoint.catalog().Find(*key.bytes()) : Catalog::kNotFound;
}

bool Has(const Checkpoint& checkpoint, py::handle name) {
  return FindIndex(checkpoint, name) != Catalog::kNotFound;
}

// Null if there is no tensor of that key.
std::shared_ptr<BoundTensor> Find(const Bound& self, py::handle name) {
  const auto opened = self->Opened();
  const size_t index = FindIndex(*opened, name);
  if (index == Catalog::kNotFound) return nullptr;
  return std::make_shared<BoundTensor>(self, *opened, index);
}

// (name, shape, dtype, the tensor, index, type number), or None.
py::object FindHandle(const Bound& self, py::handle name) {
  const std::shared_ptr<BoundTensor> tensor = Find(self, name);
  if (tensor == nullptr) return py::none();
  return py::make_tuple(tensor->name, tensor->shape, tensor->dtype, tensor, tensor->index,
                        tensor->type_number);
}

// The tensor of a row that Handles() returned. Opens nothing, so that it works after Close().
std::shared_ptr<BoundTensor> BindTensor(const Bound& self, size_t index, int32_t type_number,
                                        py::str name, py::tuple shape) {
  if (index >= self->num_tensors()) throw std::out_of_range("no such tensor");
  return std::make_shared<BoundTensor>(self, index, type_number, std::move(name), std::move(shape));
}

py::object GetTensor(const BoundCheckpoint& self, py::handle name) {
  const auto opened = self.Opened();
  const size_t index = FindIndex(*opened, name);
  if (index == Catalog::kNotFound) return py::none();
  return ReadWholeTensor(self, *opened, opened->catalog().tensors[index]);
}

// A new array of each tensor, or a NumPy scalar for rank 0; None for elements that need a
// conversion in Python. `threads` is 0 for those of the checkpoint.
py::list Load(const BoundCheckpoint& self, const py::list& tensors, int threads) {
  const auto opened = self.Opened();
  const Catalog& catalog = opened->catalog();
  py::list arrays(tensors.size());
  std::vector<TensorRead> reads;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& bound = tensors[i].cast<const BoundTensor&>();
    const Tensor& tensor = catalog.tensors.at(bound.index);
    if (!IsPlain(bound.type_number)) {
      arrays[i] = py::none();
      continue;
    }
    const std::span<const int64_t> shape = catalog.Shape(tensor);
    py::array array = NewBoxArray(*opened, tensor, WholeBox(shape), shape);
    reads.push_back({&tensor, Destination(array)});
    arrays[i] = std::move(array);
  }
  const ReadOptions options{threads != 0 ? threads : self.threads(), self.verify()};
  {
    const GilReleased released;
    ReadTensors(*opened, reads, options);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!arrays[i].is_none())
      arrays[i] = ArrayOrScalar(py::reinterpret_borrow<py::array>(arrays[i]));
  }
  return arrays;
}

// ([(full name, key, whether the checkpoint has the key)], whether the whole graph is well-formed).
py::tuple FullNamesOf(const Checkpoint& checkpoint, const py::bytes& object_graph) {
  const FullNameList found = FullNames(AsBytes(static_cast<std::string_view>(object_graph)));
  py::list rows;
  for (const auto& [name, key] : found.names) {
    const bool present = checkpoint.catalog().Find(key) != Catalog::kNotFound;
    rows.append(py::make_tuple(TextOf(name), TextOf(key), present));
  }
  return py::make_tuple(rows, found.complete);
}

// ---- Listings

void SetItem(const py::dict& dict, PyObject* key, PyObject* value) {
  if (PyDict_SetItem(dict.ptr(), key, value) != 0) throw py::error_already_set();
}

py::object DimsAsList(const Catalog& catalog, const Tensor& tensor) {
  py::object list = Steal(PyList_New(tensor.rank));
  Py_ssize_t axis = 0;
  for (const int64_t dim : catalog.Shape(tensor)) {
    PyList_SET_ITEM(list.ptr(), axis++, Steal(PyLong_FromLongLong(dim)).release().ptr());
  }
  return list;
}

void CheckNames(const Catalog& catalog, const py::list& names) {
  if (names.size() != catalog.tensors.size())
    throw std::invalid_argument("these are not the checkpoint's names");
}

// Borrowed.
PyObject* NameAt(const py::list& names, size_t i) {
  return PyList_GET_ITEM(names.ptr(), static_cast<Py_ssize_t>(i));
}

// Moves all objects of the process to the oldest generation of the garbage collector, which visits
// that one rarely. Takes constant time: freeze() takes all objects out of the collector's lists,
// unfreeze() returns them to the oldest. Does nothing if the process has frozen objects, because
// unfreeze() would unfreeze those too.
void AgeAllObjects() {
  const py::module_ collector = py::module_::import("gc");
  if (collector.attr("get_freeze_count")().cast<Py_ssize_t>() != 0) return;
  collector.attr("freeze")();
  collector.attr("unfreeze")();
}

// Disables the garbage collector while `count` containers are created, none of which can be
// garbage. In a process with a large heap, collections would be most of the time of a listing.
class PauseCollector {
 public:
  explicit PauseCollector(size_t count) : count_(count), was_enabled_(PyGC_Disable() != 0) {}
  ~PauseCollector() {
    if (was_enabled_) PyGC_Enable();
  }
  PauseCollector(const PauseCollector&) = delete;
  PauseCollector& operator=(const PauseCollector&) = delete;

  // Call it after the last container was created.
  void Done() const {
    constexpr size_t kMany = 10'000;
    if (was_enabled_ && count_ >= kMany) AgeAllObjects();
  }

 private:
  size_t count_;
  bool was_enabled_;
};

py::list ListNames(const Catalog& catalog) {
  py::list names(catalog.tensors.size());
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    PyList_SET_ITEM(names.ptr(), static_cast<Py_ssize_t>(i),
                    TextOf(catalog.tensors[i].name).release().ptr());
  }
  return names;
}

py::list Names(const Checkpoint& checkpoint) { return ListNames(checkpoint.catalog()); }

std::shared_ptr<BoundNames> DetachedNames(const Checkpoint& checkpoint) {
  return std::make_shared<BoundNames>(checkpoint.shared_catalog());
}

py::list Tensors(const Bound& self) {
  const auto opened = self->Opened();
  const size_t count = opened->catalog().tensors.size();
  const PauseCollector pause(count);
  py::list tensors(count);
  for (size_t i = 0; i < count; ++i) {
    PyList_SET_ITEM(tensors.ptr(), static_cast<Py_ssize_t>(i),
                    py::cast(std::make_shared<BoundTensor>(self, *opened, i)).release().ptr());
  }
  pause.Done();
  return tensors;
}

// The following take the list that Names() returned, so that each name becomes an object, and is
// hashed, once.

// [(name, shape, dtype, None, index, type number)]: a tuple costs less than a BoundTensor.
py::list Handles(const Checkpoint& checkpoint, const py::list& names) {
  const Catalog& catalog = checkpoint.catalog();
  CheckNames(catalog, names);
  const PauseCollector pause(catalog.tensors.size());
  py::list rows(catalog.tensors.size());
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    const Tensor& tensor = catalog.tensors[i];
    const py::object index = Steal(PyLong_FromSize_t(i));
    const py::object number = Steal(PyLong_FromLong(NumberOf(tensor)));
    const py::tuple shape = ShapeOf(catalog, tensor);
    PyObject* row = PyTuple_Pack(6, NameAt(names, i), shape.ptr(), DtypeOf(NumberOf(tensor)).ptr(),
                                 Py_None, index.ptr(), number.ptr());
    PyList_SET_ITEM(rows.ptr(), static_cast<Py_ssize_t>(i), Steal(row).release().ptr());
  }
  pause.Done();
  return rows;
}

// {name: [dims]}
py::dict ShapeMap(const Checkpoint& checkpoint, const py::list& names) {
  const Catalog& catalog = checkpoint.catalog();
  CheckNames(catalog, names);
  const PauseCollector pause(catalog.tensors.size());
  py::dict map;
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    SetItem(map, NameAt(names, i), DimsAsList(catalog, catalog.tensors[i]).ptr());
  }
  pause.Done();
  return map;
}

// {name: dtype}
py::dict TypeMap(const Checkpoint& checkpoint, const py::list& names) {
  const Catalog& catalog = checkpoint.catalog();
  CheckNames(catalog, names);
  py::dict map;
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    SetItem(map, NameAt(names, i), DtypeOf(NumberOf(catalog.tensors[i])).ptr());
  }
  return map;
}

// A line for each tensor: its name, its type in TensorFlow's enum, its shape.
py::bytes DebugString(const Checkpoint& checkpoint) {
  const Catalog& catalog = checkpoint.catalog();
  std::string text;
  for (const Tensor& tensor : catalog.tensors) {
    text.append(tensor.name).append(" (").append(DataTypeName(tensor.dtype)).append(") [");
    const char* separator = "";
    for (const int64_t dim : catalog.Shape(tensor)) {
      text.append(separator).append(std::to_string(dim));
      separator = ",";
    }
    text.append("]\n");
  }
  return text;
}

// ---- Verification

py::list Warnings(const Checkpoint& checkpoint) {
  py::list warnings;
  for (const std::string& warning : StorageWarnings(checkpoint)) warnings.append(TextOf(warning));
  return warnings;
}

// The bytes that were read, and (tensor's name, file, offset, nbytes, message, cause, error number)
// of every error. `tensors` is a list of Tensor, or None for all.
py::tuple Verify(const BoundCheckpoint& self, const py::object& tensors, py::object callback) {
  const auto opened = self.Opened();
  const Catalog& catalog = opened->catalog();
  std::vector<size_t> indices;
  if (tensors.is_none()) {
    for (size_t i = 0; i < catalog.tensors.size(); ++i) indices.push_back(i);
  } else {
    for (const py::handle each : tensors) {
      indices.push_back(each.cast<const BoundTensor&>().index);
      (void)catalog.tensors.at(indices.back());  // throws for another index
    }
  }
  uint64_t total = 0;
  for (const size_t index : indices) {
    for (const StoredSlice& slice : catalog.Slices(catalog.tensors[index])) total += slice.size;
  }
  Progress progress(std::move(callback), total);
  const VerifyResult result = [&] {
    const GilReleased released;
    return VerifyTensors(*opened, indices, self.threads(),
                         [&](uint64_t bytes) { progress.Add(bytes); });
  }();
  progress.Finish();
  py::list rows;
  for (const Corruption& found : result.corruptions) {
    const StoredSlice none;
    const StoredSlice& slice = found.slice == nullptr ? none : *found.slice;
    const std::string file =
        found.slice == nullptr ? opened->listing_file() : catalog.files[slice.file];
    rows.append(py::make_tuple(TextOf(catalog.tensors[found.tensor].name), PathOf(file),
                               slice.offset, slice.size, TextOf(found.message), TextOf(found.cause),
                               found.error_number));
  }
  return py::make_tuple(result.num_bytes, rows);
}

}  // namespace

void RegisterCheckpoint(py::module_& module) {
  py::class_<BoundNames, std::shared_ptr<BoundNames>>(module, "Names", py::is_final(), MadeByCore())
      .def("__call__", [](const BoundNames& self) { return ListNames(*self.catalog); });
  py::class_<BoundCheckpoint, Bound>(module, "Checkpoint", py::is_final(), MadeByCore())
      .def_static("open_bundle",
                  [](const std::string& prefix, const std::string& io, std::string name,
                     bool verify, int threads) {
                    const IoMode mode = ParseMode(io);
                    const GilReleased released;
                    return std::make_shared<BoundCheckpoint>(Checkpoint::OpenBundle(prefix, mode),
                                                             std::move(name), verify, threads);
                  })
      .def_static("open_v1",
                  [](const std::vector<std::string>& files, const std::string& io, std::string name,
                     bool verify, int threads) {
                    const IoMode mode = ParseMode(io);
                    const GilReleased released;
                    return std::make_shared<BoundCheckpoint>(OpenV1(files, mode), std::move(name),
                                                             verify, threads);
                  })
      .def_static("open_remote",
                  [](int format, const std::vector<std::string>& files, py::object open,
                     std::string name, bool verify, int threads) {
                    const FileOpener opener = OpenerOf(std::move(open));
                    const GilReleased released;
                    auto opened = format == 2 ? Checkpoint::OpenRemote(files.at(0), opener)
                                              : OpenV1(files, IoMode::kPread, opener);
                    return std::make_shared<BoundCheckpoint>(std::move(opened), std::move(name),
                                                             verify, threads);
                  })
      .def("close", &BoundCheckpoint::Close, py::call_guard<GilReleased>())
      .def_property_readonly("closed", &BoundCheckpoint::closed)
      .def_property_readonly("threads", &BoundCheckpoint::threads)
      .def("__len__",
           Of(+[](const Checkpoint& self) { return Int{self.catalog().tensors.size()}; }))
      .def_property_readonly("index_checksum",
                             Of(+[](const Checkpoint& self) { return Int{self.index_checksum()}; }))
      .def_property_readonly("big_endian",
                             Of(+[](const Checkpoint& self) { return self.catalog().big_endian; }))
      .def_property_readonly("warnings", Of(&Warnings))
      .def("has", Of(&Has))
      .def("find", &Find)
      .def("find_handle", &FindHandle)
      .def("bind_tensor", &BindTensor)
      .def("get_tensor", &GetTensor)
      .def("load", &Load)
      .def("full_names", Of(&FullNamesOf))
      .def("names", Of(&Names))
      .def("detached_names", Of(&DetachedNames))
      .def("tensors", &Tensors)
      .def("handles", Of(&Handles))
      .def("shape_map", Of(&ShapeMap))
      .def("type_map", Of(&TypeMap))
      .def("debug_string", Of(&DebugString))
      .def("rewritten_file", Of(+[](const Checkpoint& self) -> py::object {
             const std::string path = self.files().RewrittenFile();
             return path.empty() ? py::none() : py::object(PathOf(path));
           }))
      .def("verify", &Verify);
  module.def("set_default_threads", &SetDefaultThreads);
  module.def("default_threads", &DefaultThreads);
}

}  // namespace tensorbundle
