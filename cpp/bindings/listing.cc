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

// Keeps the garbage collector from walking the whole heap again and again while many containers are
// made, none of which can be garbage: in a process with a large heap that is most of the time that
// listing takes.
class PauseCollector {
 public:
  PauseCollector() : was_enabled_(PyGC_Disable() != 0) {}
  ~PauseCollector() {
    if (was_enabled_) PyGC_Enable();
  }
  PauseCollector(const PauseCollector&) = delete;
  PauseCollector& operator=(const PauseCollector&) = delete;

 private:
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
  const PauseCollector pause;
  py::list rows(catalog.tensors.size());
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    const Tensor& tensor = catalog.tensors[i];
    const py::tuple shape = ShapeOf(catalog, tensor);
    const py::object number = Steal(PyLong_FromLong(static_cast<int32_t>(tensor.dtype)));
    const py::object index = Steal(PyLong_FromSize_t(i));
    PyObject* row = PyTuple_Pack(4, index.ptr(), NameAt(names, i), shape.ptr(), number.ptr());
    PyList_SET_ITEM(rows.ptr(), static_cast<Py_ssize_t>(i), Steal(row).release().ptr());
  }
  return rows;
}

py::dict ShapeMap(const Catalog& catalog, const py::list& names) {
  CheckNames(catalog, names);
  const PauseCollector pause;
  py::dict map;
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    SetItem(map, NameAt(names, i), DimsAsList(catalog, catalog.tensors[i]).ptr());
  }
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
