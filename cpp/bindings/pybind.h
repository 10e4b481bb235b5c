// SPDX-License-Identifier: Apache-2.0
// Base header of the bindings: pybind11, the register functions, text and object lifetime.
//
// Lifetime. pybind11 keeps a table of all objects, and throws if there is no memory for an entry.
// It then frees the C++ object by its operator delete, although the shared_ptr that it was given
// still owns it. If Python called the constructor, the exception reaches C code, which ends the
// process. Therefore
// - every bound class is derived from HeldByPython, and its objects are made by std::make_shared,
//   which does not use the class's own operator delete;
// - no bound class has a constructor for Python: static methods return the objects.
//
// Keywords. If there is no memory for the name of an argument, pybind11 (3.1) dereferences null as
// soon as a call has keywords. Therefore Python passes all arguments by position.
//
// Without memory for the result of a function, pybind11 raises TypeError; see Int.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>
#include <type_traits>

#include "bindings/thread_exit.h"
#include "tensorbundle/base/interrupt.h"

namespace tensorbundle {

namespace py = pybind11;
using namespace pybind11::literals;  // "name"_a

// One function per part of the module. The classes come before the functions that name them.
void RegisterErrors();
void RegisterChecksum(py::module_& module);
void RegisterDifference(py::module_& module);
void RegisterDlpack(py::module_& module);
void RegisterArrays(py::module_& module);
void RegisterTensor(py::module_& module);
void RegisterStream(py::module_& module);
void RegisterCheckpoint(py::module_& module);
void RegisterNames(py::module_& module);
void RegisterObjectGraph(py::module_& module);
void RegisterAlign(py::module_& module);
void RegisterWriter(py::module_& module);
void RegisterVocabulary(py::module_& module);

// A number that Python receives as an int. Raises MemoryError if there is no memory for it.
struct Int {
  uint64_t value;
};

struct HeldByPython {
  static void operator delete(void*) {}  // the shared_ptr frees it
};

// An argument for py::class_: Python cannot create objects of the class, and a failed allocation
// raises MemoryError (pybind11 does not check the result of the allocation).
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

// Takes ownership of the result of a call of Python's C API. Throws the Python error if it is null.
inline py::object Steal(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

// Bytes as a str. Bytes that are not UTF-8 become lone surrogates, as in file names: tensor names,
// paths and the messages with them are arbitrary bytes.
inline py::str TextOf(std::string_view bytes) {
  return Steal(
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape"));
}

// A path as a str, decoded as Python decodes file names.
inline py::str PathOf(std::string_view path) {
  return Steal(PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
}

// Calls a function of Python's C API that may wait for the GIL or run Python code, and returns its
// result. While the interpreter ends, Python before 3.14 ends the daemon threads there by
// pthread_exit(), which unwinds their stacks: that would end the process with an error at the first
// destructor that waits for the GIL and at every `catch (...)`. Here the thread sleeps until the
// process ends, as in Python 3.14.
// Requires: `call` throws nothing and has no objects with destructors: see CallOrSleep().
template <typename Call>
auto CallPython(const Call& call) {
  using Result = decltype(call());
  if constexpr (std::is_void_v<Result>) {
    CallOrSleep([](const void* function) { (*static_cast<const Call*>(function))(); }, &call);
  } else {
    Result result{};
    CallPython([&] { result = call(); });
    return result;
  }
}

// Whether the interpreter has begun to end: other threads do not get the GIL any more.
inline bool IsFinalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// Throws what the handlers of signals raise, such as KeyboardInterrupt. To be called with the GIL.
inline void RaiseSignals() {
  if (CallPython([] { return PyErr_CheckSignals(); }) != 0) throw py::error_already_set();
}

// Holds the GIL. For threads that may hold it already, and for those that do not know.
class GilAcquired {
 public:
  GilAcquired() : state_(CallPython([] { return PyGILState_Ensure(); })) {}
  ~GilAcquired() { PyGILState_Release(state_); }
  GilAcquired(const GilAcquired&) = delete;
  GilAcquired& operator=(const GilAcquired&) = delete;

 private:
  PyGILState_STATE state_;
};

// Releases the GIL. Long work of this thread then hears of signals, by CheckInterrupt().
class GilReleased {
 public:
  GilReleased() : state_(PyEval_SaveThread()) {}
  ~GilReleased() {
    CallPython([this] { PyEval_RestoreThread(state_); });
  }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  static void CheckSignals() {
    const GilAcquired acquired;
    RaiseSignals();
  }

  PyThreadState* state_;
  InterruptScope scope_{&CheckSignals};
};

}  // namespace tensorbundle

template <>
struct pybind11::detail::type_caster<tensorbundle::Int> {
  PYBIND11_TYPE_CASTER(tensorbundle::Int, const_name("int"));
  static handle cast(tensorbundle::Int number, return_value_policy, handle) {
    return tensorbundle::Steal(PyLong_FromUnsignedLongLong(number.value)).release();
  }
};
