// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/catalog.h"

#include <algorithm>

namespace tensorbundle {

Box Catalog::BoxOf(const Tensor& tensor, const StoredSlice& slice) const {
  if (slice.first_extent == StoredSlice::kWholeTensor) return WholeBox(Shape(tensor));
  const auto begin = extents.begin() + static_cast<ptrdiff_t>(slice.first_extent);
  return {begin, begin + tensor.rank};
}

size_t Catalog::Find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(tensors, name, {}, &Tensor::name);
  if (found == tensors.end() || found->name != name) return kNotFound;
  return static_cast<size_t>(found - tensors.begin());
}

}  // namespace tensorbundle
