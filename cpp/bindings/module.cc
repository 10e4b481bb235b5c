// SPDX-License-Identifier: Apache-2.0
// The module tensorbundle._core: one function per part, one file per function.
#include "bindings/pybind.h"
#include "tensorbundle/base/parallel.h"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  // pybind11 releases the GIL when it looks up NumPy's functions. If the interpreter ended in that
  // moment, the destructor that waits for the GIL would end the process with an error.
  pybind11::dtype::of<uint8_t>();
  tensorbundle::PrepareToThrow();                 // on the thread that most calls come from
  module.attr("version") = TENSORBUNDLE_VERSION;  // of pyproject.toml, through CMake
  tensorbundle::RegisterErrors();
  tensorbundle::RegisterChecksum(module);
  tensorbundle::RegisterArrays(module);
  tensorbundle::RegisterDifference(module);
  tensorbundle::RegisterDlpack(module);
  tensorbundle::RegisterTensor(module);
  tensorbundle::RegisterCheckpoint(module);
  tensorbundle::RegisterStream(module);
  tensorbundle::RegisterNames(module);
  tensorbundle::RegisterObjectGraph(module);
  tensorbundle::RegisterAlign(module);
  tensorbundle::RegisterWriter(module);
  tensorbundle::RegisterVocabulary(module);
}
