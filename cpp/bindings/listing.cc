// SPDX-License-Identifier: Apache-2.0
#include "bindings/listing.h"

#include <stdexcept>

#include "bindings/text.h"

namespace tensorbundle {
namespace {

py::object Steal(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

py::object DimsAsList(const Catalog& catalog, const Tensor& tensor) {
  py::object list = Steal(PyList_New(tensor.rank));
  Py_ssize_t axis = 0;
  for (const int64_t dim : catalog.Shape(tensor)) {
    PyList_SET_ITEM(list.ptr(), axis++, Steal(PyLong_FromLongLong(dim)).release().ptr());
  }
  return list;
}

// Borrowed from `dtypes`, whose last item stands for every unknown number.
PyObject* TypeOf(const Tensor& tensor, const py::tuple& dtypes) {
  const auto last = static_cast<int64_t>(dtypes.size()) - 1;
  int64_t number = static_cast<int32_t>(tensor.dtype);
  if (number < 0 || number > last) number = last;
  return PyTuple_GET_ITEM(dtypes.ptr(), number);
}

void SetItem(const py::dict& dict, PyObject* key, PyObject* value) {
  if (PyDict_SetItem(dict.ptr(), key, value) != 0) throw py::error_already_set();
}

void CheckNames(const Catalog& catalog, const py::list& names) {
  if (names.size() != catalog.tensors.size())
    throw std::invalid_argument("these are not the checkpoint's names");
}

// Borrowed.
PyObject* NameAt(const py::list& names, size_t i) {
  return PyList_GET_ITEM(names.ptr(), static_cast<Py_ssize_t>(i));
}

// Makes the objects of the whole process old in the eyes of the garbage collector, which looks at
// the old ones rarely. In constant time: freeze takes them all out of its sight, unfreeze puts them
// back among the old. Not where somebody has frozen objects, who wants them to stay frozen.
void AgeAllObjects() {
  const py::module_ collector = py::module_::import("gc");
  if (collector.attr("get_freeze_count")().cast<Py_ssize_t>() != 0) return;
  collector.attr("freeze")();
  collector.attr("unfreeze")();
}

// Keeps the garbage collector from walking the whole heap again and again while `count` containers
// are made, none of which can be garbage, and from visiting each of them right afterwards: in a
// process with a large heap that is most of the time that listing takes.
class PauseCollector {
 public:
  explicit PauseCollector(size_t count) : count_(count), was_enabled_(PyGC_Disable() != 0) {}
  ~PauseCollector() {
    if (was_enabled_) PyGC_Enable();
  }
  PauseCollector(const PauseCollector&) = delete;
  PauseCollector& operator=(const PauseCollector&) = delete;

  // To be called when all are made.
  void Done() const {
    constexpr size_t kMany = 10'000;
    if (was_enabled_ && count_ >= kMany) AgeAllObjects();
  }

 private:
  size_t count_;
  bool was_enabled_;
};

}  // namespace

py::str NameOf(const Tensor& tensor) { return TextOf(tensor.name); }

py::tuple ShapeOf(const Catalog& catalog, const Tensor& tensor) {
  py::tuple shape(tensor.rank);
  Py_ssize_t axis = 0;
  for (const int64_t dim : catalog.Shape(tensor)) {
    PyTuple_SET_ITEM(shape.ptr(), axis++, Steal(PyLong_FromLongLong(dim)).release().ptr());
  }
  return shape;
}

py::list Names(const Catalog& catalog) {
  py::list names(catalog.tensors.size());
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    PyList_SET_ITEM(names.ptr(), static_cast<Py_ssize_t>(i),
                    NameOf(catalog.tensors[i]).release().ptr());
  }
  return names;
}

py::list Listing(const Catalog& catalog, const py::list& names) {
  CheckNames(catalog, names);
  const PauseCollector pause(catalog.tensors.size());
  py::list rows(catalog.tensors.size());
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    const Tensor& tensor = catalog.tensors[i];
    const py::tuple shape = ShapeOf(catalog, tensor);
    const py::object number = Steal(PyLong_FromLong(static_cast<int32_t>(tensor.dtype)));
    const py::object index = Steal(PyLong_FromSize_t(i));
    PyObject* row = PyTuple_Pack(4, index.ptr(), NameAt(names, i), shape.ptr(), number.ptr());
    PyList_SET_ITEM(rows.ptr(), static_cast<Py_ssize_t>(i), Steal(row).release().ptr());
  }
  pause.Done();
  return rows;
}

py::dict ShapeMap(const Catalog& catalog, const py::list& names) {
  CheckNames(catalog, names);
  const PauseCollector pause(catalog.tensors.size());
  py::dict map;
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    SetItem(map, NameAt(names, i), DimsAsList(catalog, catalog.tensors[i]).ptr());
  }
  pause.Done();
  return map;
}

py::dict TypeMap(const Catalog& catalog, const py::list& names, const py::tuple& dtypes) {
  CheckNames(catalog, names);
  py::dict map;
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    SetItem(map, NameAt(names, i), TypeOf(catalog.tensors[i], dtypes));
  }
  return map;
}

}  // namespace tensorbundle
