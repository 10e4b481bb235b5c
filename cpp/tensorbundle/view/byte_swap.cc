// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/byte_swap.h"

#include <cstring>

namespace tensorbundle {
namespace {

uint16_t Swap(uint16_t value) { return __builtin_bswap16(value); }
uint32_t Swap(uint32_t value) { return __builtin_bswap32(value); }
uint64_t Swap(uint64_t value) { return __builtin_bswap64(value); }

template <typename Word>
void SwapWords(MutableByteSpan bytes) {
  for (size_t i = 0; i + sizeof(Word) <= bytes.size(); i += sizeof(Word)) {
    Word word;
    std::memcpy(&word, bytes.data() + i, sizeof(word));
    word = Swap(word);
    std::memcpy(bytes.data() + i, &word, sizeof(word));
  }
}

}  // namespace

void SwapBytes(MutableByteSpan bytes, unsigned unit) {
  if (unit == 2) SwapWords<uint16_t>(bytes);
  if (unit == 4) SwapWords<uint32_t>(bytes);
  if (unit == 8) SwapWords<uint64_t>(bytes);
}

}  // namespace tensorbundle
