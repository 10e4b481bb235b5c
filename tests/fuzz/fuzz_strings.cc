// SPDX-License-Identifier: Apache-2.0
// The bytes are stored strings or variants. The first byte selects the type, the byte order and the
// number of elements.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "fuzz_input.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/read_strings.h"

namespace tensorbundle::fuzz {
namespace {

// The catalog of one tensor that takes the whole file. Applies the size check of the index.
bool MakeCatalog(uint8_t choice, size_t size, Catalog* catalog) {
  const bool is_string = (choice & 1) != 0;
  const int64_t count = choice >> 2;
  const size_t least = is_string ? static_cast<size_t>(count) + 4 : static_cast<size_t>(count) * 5;
  if (size < least) return false;
  Tensor tensor;
  tensor.dtype = is_string ? DataType::kString : DataType::kVariant;
  tensor.rank = 1;
  tensor.num_elements = static_cast<uint64_t>(count);
  tensor.num_slices = 1;
  StoredSlice slice;
  slice.size = size;
  slice.has_checksum = true;
  slice.encoding = is_string ? Encoding::kStrings : Encoding::kVariants;
  catalog->tensors = {tensor};
  catalog->dims = {count};
  catalog->slices = {slice};
  catalog->files = {"fuzz.data"};
  catalog->big_endian = (choice & 2) != 0;
  return true;
}

void ReadAll(const Checkpoint& checkpoint, size_t size, bool verify) {
  const Tensor& tensor = checkpoint.catalog().tensors[0];
  try {
    const StringElements elements =
        ReadStrings(checkpoint, tensor, checkpoint.catalog().slices[0], verify);
    Require(elements.size() == tensor.num_elements);
    size_t total = 0;
    uint8_t sum = 0;
    for (size_t i = 0; i < elements.size(); ++i) {
      for (const char c : elements[i]) sum = static_cast<uint8_t>(sum ^ c);
      total += elements[i].size();
    }
    volatile uint8_t used = sum;
    static_cast<void>(used);
    Require(total <= size);
  } catch (const Error&) {
  }
}

// The decoder of whole slices and the one that takes chunks must agree about the checksum.
void CompareDecoders(const Catalog& catalog, ByteSpan bytes) {
  const Tensor& tensor = catalog.tensors[0];
  const Encoding encoding = catalog.slices[0].encoding;
  const DecodedElements whole =
      DecodeElements(bytes, encoding, tensor.num_elements, catalog.big_endian, true);
  for (const size_t chunk : {bytes.size() + 1, size_t{1}, size_t{7}}) {
    StreamingElements streaming(encoding, tensor.num_elements, catalog.big_endian);
    for (size_t at = 0; at < bytes.size(); at += chunk) {
      streaming.Extend(bytes.subspan(at, std::min(chunk, bytes.size() - at)));
    }
    const std::optional<uint32_t> checksum = streaming.Value();
    Require(checksum.has_value() == (whole.error == ElementsError::kNone));
    if (checksum) Require(*checksum == whole.checksum);
  }
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  Catalog catalog;
  if (size == 0 || !fuzz::MakeCatalog(data[0], size - 1, &catalog)) return 0;
  const ByteSpan bytes(data + 1, size - 1);
  fuzz::CompareDecoders(catalog, bytes);
  const Checkpoint checkpoint(std::move(catalog), 0, IoMode::kPread, nullptr,
                              fuzz::OpensMemory(AsText(bytes)));
  fuzz::ReadAll(checkpoint, bytes.size(), false);
  fuzz::ReadAll(checkpoint, bytes.size(), true);
  return 0;
}
