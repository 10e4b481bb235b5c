// SPDX-License-Identifier: Apache-2.0
// Slicing by 16: sixteen bytes enter the register at once, each through a table of its own.
#include <array>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c_implementations.h"
#include "tensorbundle/base/crc32c_polynomial.h"

namespace tensorbundle::crc32c {
namespace {

constexpr size_t kSlice = 16;

// [k][b] is what byte b, followed by k bytes of zero, makes of a register of zero.
using Tables = std::array<std::array<uint32_t, 256>, kSlice>;

constexpr Tables kTables = [] {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t state = byte;
    for (int bit = 0; bit < 8; ++bit) state = TimesX(state);
    tables[0][byte] = state;
  }
  for (size_t k = 1; k < kSlice; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}();

// The eight bytes of `word`, of which the last is followed by `after` more bytes.
inline uint32_t Slice8(uint64_t word, size_t after) {
  return kTables[after + 7][word & 0xff] ^ kTables[after + 6][(word >> 8) & 0xff] ^
         kTables[after + 5][(word >> 16) & 0xff] ^ kTables[after + 4][(word >> 24) & 0xff] ^
         kTables[after + 3][(word >> 32) & 0xff] ^ kTables[after + 2][(word >> 40) & 0xff] ^
         kTables[after + 1][(word >> 48) & 0xff] ^ kTables[after][word >> 56];
}

}  // namespace

uint32_t ExtendPortable(uint32_t crc, const uint8_t* data, size_t n) {
  uint32_t state = ~crc;
  for (; n >= kSlice; data += kSlice, n -= kSlice) {
    // The register adds onto the first four bytes: s * x^128 = (s * x^96) * x^32.
    state = Slice8(LoadFixed64(data) ^ state, 8) ^ Slice8(LoadFixed64(data + 8), 0);
  }
  for (; n != 0; ++data, --n) state = (state >> 8) ^ kTables[0][(state ^ *data) & 0xff];
  return ~state;
}

}  // namespace tensorbundle::crc32c
