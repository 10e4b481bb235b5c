// SPDX-License-Identifier: Apache-2.0
// Files in remote stores, which Python opens and reads (tensorbundle/remote.py).
#pragma once

#include <string>

#include "bindings/pybind.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

// Returns an opener that calls `open(url)` in Python. It returns the size of the file and a
// function read(offset, buffer) that fills a writable memoryview. Both are called with the GIL, by
// any thread; no lock of the core is held meanwhile. Python's exceptions become the core's: one
// about a missing file CheckpointNotFoundError, CorruptionError itself, another OSError IOFailure.
FileOpener OpenerOf(py::object open);

}  // namespace tensorbundle
