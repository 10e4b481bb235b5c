// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/format.h"

#include <algorithm>

#include "tensorbundle/base/coding.h"

namespace tensorbundle {

const uint8_t* DecodeBlockHandle(const uint8_t* p, const uint8_t* limit, BlockHandle* handle) {
  BlockHandle result;
  p = DecodeVarint64(p, limit, &result.offset);
  if (p == nullptr) return nullptr;
  p = DecodeVarint64(p, limit, &result.size);
  if (p == nullptr) return nullptr;
  *handle = result;
  return p;
}

bool HasTableMagic(ByteSpan tail) {
  return tail.size() >= sizeof(kTableMagic) &&
         LoadFixed64(tail.data() + tail.size() - sizeof(kTableMagic)) == kTableMagic;
}

std::optional<Footer> DecodeFooter(ByteSpan footer) {
  Footer result;
  const uint8_t* p = footer.data();
  const uint8_t* padding_end = p + kFooterSize - sizeof(kTableMagic);
  p = DecodeBlockHandle(p, padding_end, &result.metaindex);
  if (p != nullptr) p = DecodeBlockHandle(p, padding_end, &result.index);
  // A last byte of 0 is a flipped bit: no index block has size 0, and no writer pads a varint.
  if (p == nullptr || p[-1] == 0) return std::nullopt;
  // TensorFlow ignores the padding, and no checksum covers it.
  if (!std::all_of(p, padding_end, [](uint8_t byte) { return byte == 0; })) return std::nullopt;
  return result;
}

}  // namespace tensorbundle
