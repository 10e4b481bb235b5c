// SPDX-License-Identifier: Apache-2.0
// NumPy arrays: dtypes by TensorFlow's type numbers, arrays over mapped memory, memory of arrays.
#pragma once

#include <memory>
#include <span>

#include "bindings/pybind.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/io/mapping.h"
#include "tensorbundle/read/gather.h"

namespace tensorbundle {

// Returns the dtype of TensorFlow's type of this number; object for numbers without one.
//
// Requires: Python called set_dtypes(); the package does when it is imported.
py::handle DtypeOf(int32_t type_number);

// Whether elements of the type are stored as they are handed out.
bool IsPlain(int32_t type_number);

enum class Access { kReadOnly, kWritable };

// Returns an array over mapped memory. `strides` are in bytes, one per axis; null: the array is
// C-contiguous. `bytes` begins at the first element.
// Lifetime: the array holds a share of the mapping.
py::array ArrayOver(std::shared_ptr<const Mapping> owner, const uint8_t* bytes, py::handle dtype,
                    std::span<const int64_t> shape, const py::ssize_t* strides, Access access);

// Returns an array over other memory, which `base` keeps.
py::array ArrayOver(py::handle base, const uint8_t* bytes, py::handle dtype,
                    std::span<const int64_t> shape, const py::ssize_t* strides, Access access);

// Returns a new array of uninitialized elements; of null pointers for the dtype object.
py::array NewArray(py::handle dtype, std::span<const int64_t> shape);

// Returns a NumPy scalar with a copy of one element.
py::object ScalarAt(const uint8_t* element, py::handle dtype);

// Returns the memory of an array to be filled. Throws std::invalid_argument unless it is writable
// and C-contiguous.
MutableByteSpan Destination(py::array& out);

// Returns the memory of a C-contiguous array.
ByteSpan BytesOf(const py::array& array);

bool IsAlignedAndContiguous(const py::array& array);

// Returns the elements of a C-contiguous, aligned array of this dtype.
template <typename Element>
std::span<const Element> SpanOf(const py::array& array) {
  return {static_cast<const Element*>(array.data()), static_cast<size_t>(array.size())};
}

// Returns the numbers of a C-contiguous, aligned array of int32, int64, uint32 or uint64. Throws
// std::invalid_argument for any other.
RowIds ToRowIds(const py::array& ids);

}  // namespace tensorbundle
