// SPDX-License-Identifier: Apache-2.0
// What every file of the bindings includes first.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace tensorbundle {

namespace py = pybind11;
using namespace pybind11::literals;  // "name"_a

// Each part of the module, in a file of its own.
void RegisterErrors();
void RegisterChecksum(py::module_& module);
void RegisterDlpack(py::module_& module);
void RegisterCheckpoint(py::module_& module);
// After the checkpoint, whose class they name.
void RegisterNames(py::module_& module);
void RegisterGather(py::module_& module);
void RegisterRanges(py::module_& module);
void RegisterRewrite(py::module_& module);
void RegisterStreaming(py::module_& module);
void RegisterVocab(py::module_& module);

}  // namespace tensorbundle
