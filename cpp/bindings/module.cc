// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/parallel.h"

#include "bindings/pybind.h"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  tensorbundle::PrepareToThrow();                 // on the thread that most calls come from
  module.attr("version") = TENSORBUNDLE_VERSION;  // of pyproject.toml, through CMake
  tensorbundle::RegisterErrors();
  tensorbundle::RegisterChecksum(module);
  tensorbundle::RegisterDlpack(module);
  tensorbundle::RegisterCheckpoint(module);
  tensorbundle::RegisterNames(module);
  tensorbundle::RegisterGather(module);
  tensorbundle::RegisterRanges(module);
  tensorbundle::RegisterRewrite(module);
  tensorbundle::RegisterStreaming(module);
  tensorbundle::RegisterVocab(module);
}
