// SPDX-License-Identifier: Apache-2.0
// Translates the core's exceptions: each C++ class to the class of that name in
// tensorbundle.errors.
#include <cerrno>
#include <exception>

#include "bindings/pybind.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

template <typename... Args>
void Raise(const char* class_name, Args&&... args) {
  const py::object type = py::module_::import("tensorbundle.errors").attr(class_name);
  const py::object error = type(std::forward<Args>(args)...);
  PyErr_SetObject(type.ptr(), error.ptr());
}

// Whether pybind11 threw because Python had no memory: it says "Could not allocate list object!" by
// a std::runtime_error, and leaves Python's own exception where it is.
bool IsOutOfMemory() {
  return PyErr_Occurred() != nullptr && PyErr_ExceptionMatches(PyExc_MemoryError) != 0;
}

void Translate(std::exception_ptr thrown) {
  if (IsOutOfMemory()) return;
  try {
    std::rethrow_exception(thrown);
  } catch (const TensorNotFoundError& error) {
    Raise("TensorNotFoundError", TextOf(error.what()));
  } catch (const CorruptionError& error) {
    Raise("CorruptionError", TextOf(error.what()));
  } catch (const ShapeMismatchError& error) {
    Raise("ShapeMismatchError", TextOf(error.what()));
  } catch (const UnsupportedError& error) {
    Raise("UnsupportedError", TextOf(error.what()));
  } catch (const CheckpointNotFoundError& error) {
    Raise("CheckpointNotFoundError", TextOf(error.what()), TextOf(error.path()));
  } catch (const IOFailure& error) {
    const bool out_of_memory = error.error_number() == ENOMEM;
    Raise(out_of_memory ? "OutOfMemoryError" : "IOFailure", TextOf(error.what()),
          error.error_number(), TextOf(error.path()));
  } catch (const Error& error) {
    Raise("Error", TextOf(error.what()));
  }
}

}  // namespace

void RegisterErrors() { py::register_local_exception_translator(Translate); }

}  // namespace tensorbundle
