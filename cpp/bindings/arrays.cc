// SPDX-License-Identifier: Apache-2.0
#include "bindings/arrays.h"

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tensorbundle {
namespace {

// Set once, at import. Never destroyed: Python objects must not be released after Python ended.
struct DtypeTable {
  PyObject* dtypes = nullptr;  // a tuple; the last item is for numbers without a dtype
  std::vector<bool> is_plain;  // by number
};

DtypeTable& Dtypes() {
  static DtypeTable& table = *new DtypeTable;
  return table;
}

void SetDtypes(const py::tuple& dtypes, const std::vector<size_t>& converted) {
  if (dtypes.empty()) throw std::invalid_argument("no dtypes");
  std::vector<bool> is_plain(dtypes.size(), true);
  for (const size_t number : converted) is_plain.at(number) = false;
  is_plain.back() = false;
  DtypeTable& table = Dtypes();
  Py_XDECREF(table.dtypes);
  table.is_plain = std::move(is_plain);
  table.dtypes = py::tuple(dtypes).release().ptr();
}

// The place of a number in the table.
Py_ssize_t PlaceOf(int32_t type_number) {
  if (Dtypes().dtypes == nullptr) throw std::logic_error("set_dtypes() was not called");
  const Py_ssize_t last = PyTuple_GET_SIZE(Dtypes().dtypes) - 1;
  return type_number < 0 || type_number > last ? last : type_number;
}

// Calls NumPy directly: pybind11's constructor of an array takes three times as long. Without
// `bytes`, NumPy allocates writable elements.
py::array NewFromDescr(py::handle dtype, std::span<const int64_t> shape, const py::ssize_t* strides,
                       const uint8_t* bytes, Access access) {
  static_assert(sizeof(py::ssize_t) == sizeof(int64_t));
  const auto& numpy = py::detail::npy_api::get();
  const bool is_writable = bytes != nullptr && access == Access::kWritable;
  PyObject* const descriptor = dtype.inc_ref().ptr();  // the function steals it
  // NumPy releases the GIL while it allocates zeros, as for objects.
  return py::reinterpret_steal<py::array>(
      Steal(CallPython([&] {
        return numpy.PyArray_NewFromDescr_(
            numpy.PyArray_Type_, descriptor, static_cast<int>(shape.size()),
            reinterpret_cast<const Py_intptr_t*>(shape.data()), strides,
            const_cast<uint8_t*>(bytes),
            is_writable ? int{py::detail::npy_api::NPY_ARRAY_WRITEABLE_} : 0, nullptr);
      })).release());
}

}  // namespace

py::handle DtypeOf(int32_t type_number) {
  return PyTuple_GET_ITEM(Dtypes().dtypes, PlaceOf(type_number));
}

bool IsPlain(int32_t type_number) {
  return Dtypes().is_plain[static_cast<size_t>(PlaceOf(type_number))];
}

py::array ArrayOver(std::shared_ptr<const Mapping> owner, const uint8_t* bytes, py::handle dtype,
                    std::span<const int64_t> shape, const py::ssize_t* strides, Access access) {
  using Owner = std::shared_ptr<const Mapping>;
  auto held = std::make_unique<Owner>(std::move(owner));
  const py::capsule base(held.get(), [](void* p) { delete static_cast<Owner*>(p); });
  held.release();  // now held by `base`
  return ArrayOver(base, bytes, dtype, shape, strides, access);
}

py::array ArrayOver(py::handle base, const uint8_t* bytes, py::handle dtype,
                    std::span<const int64_t> shape, const py::ssize_t* strides, Access access) {
  py::array array = NewFromDescr(dtype, shape, strides, bytes, access);
  if (py::detail::npy_api::get().PyArray_SetBaseObject_(array.ptr(), base.inc_ref().ptr()) != 0) {
    throw py::error_already_set();
  }
  return array;
}

py::array NewArray(py::handle dtype, std::span<const int64_t> shape) {
  return NewFromDescr(dtype, shape, nullptr, nullptr, Access::kWritable);
}

py::object ScalarAt(const uint8_t* element, py::handle dtype) {
  return Steal(py::detail::npy_api::get().PyArray_Scalar_(const_cast<uint8_t*>(element),
                                                          dtype.ptr(), nullptr));
}

MutableByteSpan Destination(py::array& out) {
  if (!out.writeable()) throw std::invalid_argument("the destination array is read-only");
  if ((out.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument("the destination array is not C-contiguous");
  }
  return {static_cast<uint8_t*>(out.mutable_data()), static_cast<size_t>(out.nbytes())};
}

ByteSpan BytesOf(const py::array& array) {
  return {static_cast<const uint8_t*>(array.data()), static_cast<size_t>(array.nbytes())};
}

bool IsAlignedAndContiguous(const py::array& array) {
  constexpr int kWanted = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
  return (array.flags() & kWanted) == kWanted;
}

RowIds ToRowIds(const py::array& ids) {
  if (!IsAlignedAndContiguous(ids)) {
    throw std::invalid_argument("row numbers must be C-contiguous and aligned");
  }
  if (py::isinstance<py::array_t<int32_t>>(ids)) return SpanOf<int32_t>(ids);
  if (py::isinstance<py::array_t<int64_t>>(ids)) return SpanOf<int64_t>(ids);
  if (py::isinstance<py::array_t<uint32_t>>(ids)) return SpanOf<uint32_t>(ids);
  if (py::isinstance<py::array_t<uint64_t>>(ids)) return SpanOf<uint64_t>(ids);
  throw std::invalid_argument("row numbers must be int32, int64, uint32 or uint64");
}

void RegisterArrays(py::module_& module) {
  module.def("set_dtypes", &SetDtypes);
  // Without memory, NumPy's own `__array_interface__` ends the process.
  module.def("address_of",
             [](const py::array& array) { return Int{reinterpret_cast<uintptr_t>(array.data())}; });
}

}  // namespace tensorbundle
