// SPDX-License-Identifier: Apache-2.0
// Our exceptions as Python's: each C++ class becomes the class of that name in tensorbundle.errors.
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

// A message holds paths, which are bytes of any kind.
py::str Text(const std::string& bytes) {
  PyObject* text =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(text);
}

void Translate(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const TensorNotFoundError& error) {
    Raise("TensorNotFoundError", Text(error.what()));
  } catch (const CorruptionError& error) {
    Raise("CorruptionError", Text(error.what()));
  } catch (const ShapeMismatchError& error) {
    Raise("ShapeMismatchError", Text(error.what()));
  } catch (const UnsupportedError& error) {
    Raise("UnsupportedError", Text(error.what()));
  } catch (const CheckpointNotFoundError& error) {
    Raise("CheckpointNotFoundError", Text(error.what()), Text(error.path()));
  } catch (const IOFailure& error) {
    Raise("IOFailure", Text(error.what()), error.error_number(), Text(error.path()));
  } catch (const Error& error) {
    Raise("Error", Text(error.what()));
  }
}

}  // namespace

void RegisterErrors() { py::register_local_exception_translator(Translate); }

}  // namespace tensorbundle
