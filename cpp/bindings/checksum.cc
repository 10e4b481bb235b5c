// SPDX-License-Identifier: Apache-2.0
#include "bindings/pybind.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/parallel.h"

namespace tensorbundle {

void RegisterChecksum(py::module_& module) {
  module.def(
      "crc32c",
      [](const py::buffer& data, uint32_t value) {
        const py::buffer_info info =
            data.request();  // keeps the memory exported while the GIL is away
        const GilReleased released;
        return Int{crc32c::Extend(value, info.ptr, static_cast<size_t>(info.size * info.itemsize))};
      },
      "data"_a, "value"_a = 0, py::pos_only());
  module.def("crc32c_combine", [](uint32_t first, uint32_t second, uint64_t size) {
    return Int{crc32c::Combine(first, second, size)};
  });
  module.def("crc32c_implementation", &crc32c::ActiveName);
  module.def("available_processors", &AvailableProcessors);
}

}  // namespace tensorbundle
