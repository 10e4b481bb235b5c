// SPDX-License-Identifier: Apache-2.0
// Names, shapes and types of all tensors as Python objects. Written against the C API: a checkpoint
// may list hundreds of thousands of tensors, and each object's cost is what listing costs.
#pragma once

#include "bindings/pybind.h"
#include "tensorbundle/bundle/catalog.h"

namespace tensorbundle {

py::str NameOf(const Tensor& tensor);
py::tuple ShapeOf(const Catalog& catalog, const Tensor& tensor);

py::list Names(const Catalog& catalog);

// The following take the list that Names made, so that each name becomes an object, and is hashed,
// once. `dtypes[number]` stands for each type; numbers beyond its end are looked up as its last
// item.
py::list Listing(const Catalog& catalog, const py::list& names);   // [(name, shape, type number)]
py::dict ShapeMap(const Catalog& catalog, const py::list& names);  // {name: [dims]}
py::dict TypeMap(const Catalog& catalog, const py::list& names,
                 const py::tuple& dtypes);  // {name: dtype}

}  // namespace tensorbundle
