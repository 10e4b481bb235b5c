// SPDX-License-Identifier: Apache-2.0
// The differences between the elements of two arrays.
#include "tensorbundle/base/difference.h"

#include <complex>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "bindings/arrays.h"
#include "bindings/pybind.h"

namespace tensorbundle {
namespace {

// Returns None if the arrays have other elements.
template <typename Element>
py::object CompareIf(const py::array& a, const py::array& b, const DifferenceRule& rule) {
  if (!py::isinstance<py::array_t<Element>>(a) || !py::isinstance<py::array_t<Element>>(b)) {
    return py::none();
  }
  const auto found = [&] {
    const GilReleased released;
    return Compare(SpanOf<Element>(a), SpanOf<Element>(b), rule);
  }();
  return py::make_tuple(found.num_different, found.num_not_finite, found.max_abs, found.max_rel);
}

py::object CompareElements(const py::array& a, const py::array& b, bool skips_same_bits,
                           bool is_exact, double rtol, double atol) {
  if (!IsAlignedAndContiguous(a) || !IsAlignedAndContiguous(b)) {
    throw std::invalid_argument("arrays must be aligned and C-contiguous");
  }
  if (a.size() != b.size()) throw std::invalid_argument("arrays must have the same size");
  const DifferenceRule rule{skips_same_bits, is_exact, rtol, atol};
  for (const auto compare : {CompareIf<float>, CompareIf<double>, CompareIf<std::complex<double>>,
                             CompareIf<int64_t>, CompareIf<uint64_t>}) {
    py::object found = compare(a, b, rule);
    if (!found.is_none()) return found;
  }
  throw std::invalid_argument(
      "both arrays must be of float32, float64, complex128, int64 or uint64");
}

}  // namespace

void RegisterDifference(py::module_& module) { module.def("compare_elements", &CompareElements); }

}  // namespace tensorbundle
