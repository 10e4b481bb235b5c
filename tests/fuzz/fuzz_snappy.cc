// SPDX-License-Identifier: Apache-2.0
// The bytes are a Snappy block.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "tensorbundle/table/snappy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = tensorbundle::SnappyUncompress({data, size});
  if (bytes && bytes->size() > 22 * size) std::abort();  // more than the format can give
  return 0;
}
