// SPDX-License-Identifier: Apache-2.0
// C++ objects that Python objects hold, safe when memory runs out while the Python object is made.
//
// pybind11 keeps a table of all objects, and an entry that finds no memory throws. It then frees
// the C++ object by its operator delete, although the shared_ptr that it was given still owns it;
// and where Python called the constructor, the exception meets C code, which ends the process. So
// - every class is derived from HeldByPython, and its objects are made by std::make_shared, which
//   does not use a class's own operator delete;
// - no class has a constructor for Python: static methods return the objects.
#pragma once

#include <memory>
#include <utility>

#include "bindings/pybind.h"
#include "tensorbundle/bundle/checkpoint.h"

namespace tensorbundle {

struct HeldByPython {
  static void operator delete(void*) {}  // the shared_ptr frees it
};

// What to give py::class_: Python cannot make such objects, and gets MemoryError when there is no
// memory for one (pybind11 does not look at what the allocation returns).
inline py::custom_type_setup MadeByCore() {
  return py::custom_type_setup([](PyHeapTypeObject* type) {
    type->ht_type.tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
    type->ht_type.tp_alloc = [](PyTypeObject* self, Py_ssize_t items) {
      PyObject* object = PyType_GenericAlloc(self, items);
      if (object == nullptr) throw py::error_already_set();
      return object;
    };
  });
}

// The class behind tensorbundle.Checkpoint.
struct BoundCheckpoint : HeldByPython {
  explicit BoundCheckpoint(std::shared_ptr<const Checkpoint> opened) : core(std::move(opened)) {}
  const std::shared_ptr<const Checkpoint> core;
};

// A function of a Checkpoint as one that Python can call.
template <typename Result, typename... Args>
auto Of(Result (*function)(const Checkpoint&, Args...)) {
  return [function](const BoundCheckpoint& self, Args... args) -> Result {
    return function(*self.core, std::forward<Args>(args)...);
  };
}

}  // namespace tensorbundle
