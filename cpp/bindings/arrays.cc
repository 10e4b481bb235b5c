// SPDX-License-Identifier: Apache-2.0
#include "bindings/arrays.h"

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace tensorbundle {

py::array ArrayOver(std::shared_ptr<const Mapping> owner, ByteSpan bytes, const py::dtype& dtype,
                    std::span<const int64_t> shape, Access access) {
  using Owner = std::shared_ptr<const Mapping>;
  auto held = std::make_unique<Owner>(std::move(owner));
  const py::capsule base(held.get(), [](void* p) { delete static_cast<Owner*>(p); });
  held.release();  // now held by `base`
  py::array array(dtype, std::vector<py::ssize_t>(shape.begin(), shape.end()), bytes.data(), base);
  // pybind11 makes arrays with a base writable; writing to a read-only mapping would kill the
  // process.
  if (access == Access::kReadOnly) array.attr("setflags")("write"_a = false);
  return array;
}

MutableByteSpan Destination(py::array& out) {
  if (!out.writeable()) throw std::invalid_argument("the destination array is read-only");
  if ((out.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument("the destination array is not C-contiguous");
  }
  return {static_cast<uint8_t*>(out.mutable_data()), static_cast<size_t>(out.nbytes())};
}

void CheckItemSize(const py::dtype& dtype, uint64_t item_size) {
  if (static_cast<uint64_t>(dtype.itemsize()) == item_size) return;
  throw std::invalid_argument("elements of " + py::cast<std::string>(py::str(dtype)) + " have " +
                              std::to_string(dtype.itemsize()) + " bytes, the stored ones " +
                              std::to_string(item_size));
}

}  // namespace tensorbundle
