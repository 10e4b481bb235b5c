// SPDX-License-Identifier: Apache-2.0
// The function cast_bfloat16.
#include <cstdint>
#include <span>
#include <stdexcept>

#include "bindings/pybind.h"
#include "tensorbundle/write/bfloat16.h"

namespace tensorbundle {
namespace {

using Float32Bits = py::array_t<uint32_t, py::array::c_style>;
using Bfloat16Bits = py::array_t<uint16_t, py::array::c_style>;

template <typename From, typename To>
void Cast(const py::array_t<From, py::array::c_style>& from,
          py::array_t<To, py::array::c_style>& to,
          void (*cast)(std::span<const From>, std::span<To>)) {
  if (from.size() != to.size()) throw std::invalid_argument("the arrays differ in size");
  const std::span<const From> source(from.data(), static_cast<size_t>(from.size()));
  const std::span<To> target(to.mutable_data(), static_cast<size_t>(to.size()));
  const py::gil_scoped_release release;
  cast(source, target);
}

}  // namespace

void RegisterCasts(py::module_& module) {
  module.def(
      "cast_bfloat16",
      [](const Float32Bits& from, Bfloat16Bits& to) { Cast(from, to, &CastToBfloat16); },
      py::arg("source").noconvert(), py::arg("out").noconvert());
  module.def(
      "cast_bfloat16",
      [](const Bfloat16Bits& from, Float32Bits& to) { Cast(from, to, &CastToFloat32); },
      py::arg("source").noconvert(), py::arg("out").noconvert());
}

}  // namespace tensorbundle
