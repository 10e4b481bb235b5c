// SPDX-License-Identifier: Apache-2.0
// Bytes of any kind as Python text.
#pragma once

#include <string_view>

#include "bindings/pybind.h"

namespace tensorbundle {

// Bytes that are not UTF-8 become lone surrogates, as in file names: tensor names, paths and the
// messages that hold them are arbitrary bytes.
inline py::str TextOf(std::string_view bytes) {
  PyObject* text =
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(text);
}

}  // namespace tensorbundle
