// SPDX-License-Identifier: Apache-2.0
// NumPy arrays over memory of ours, and memory of theirs.
#pragma once

#include <memory>
#include <span>

#include "bindings/pybind.h"
#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

enum class Access { kReadOnly, kWritable };

// An array over mapped memory. It holds a share of the mapping, so it outlives everything else.
py::array ArrayOver(std::shared_ptr<const Mapping> owner, ByteSpan bytes, const py::dtype& dtype,
                    std::span<const int64_t> shape, Access access);

// The memory of an array to be filled. Throws std::invalid_argument unless it is writable and
// C-contiguous.
MutableByteSpan Destination(py::array& out);

// Throws std::invalid_argument unless elements of `dtype` have the stored size.
void CheckItemSize(const py::dtype& dtype, uint64_t item_size);

}  // namespace tensorbundle
