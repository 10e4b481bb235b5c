// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/bfloat16.h"

#include <cstddef>

namespace tensorbundle {
namespace {

constexpr uint32_t kSign = 0x8000'0000;
constexpr uint32_t kInfinity = 0x7F80'0000;
constexpr uint32_t kQuietNan = 0x7FC0'0000;

}  // namespace

// The loops have no branches, so that the compiler vectorizes them.
void CastToBfloat16(std::span<const uint32_t> from, std::span<uint16_t> to) {
  const uint32_t* const source = from.data();
  uint16_t* const target = to.data();
  for (size_t i = 0; i < from.size(); ++i) {
    const uint32_t bits = source[i];
    const uint32_t magnitude = bits & ~kSign;
    // Half of the last place that is kept; one less if that place is even, so that ties stay there.
    // A carry into the exponent is right: the largest numbers become infinite.
    const uint32_t rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    const uint32_t nan = (bits & kSign) | kQuietNan;
    target[i] = static_cast<uint16_t>((magnitude > kInfinity ? nan : rounded) >> 16);
  }
}

void CastToFloat32(std::span<const uint16_t> from, std::span<uint32_t> to) {
  const uint16_t* const source = from.data();
  uint32_t* const target = to.data();
  for (size_t i = 0; i < from.size(); ++i) target[i] = uint32_t{source[i]} << 16;
}

}  // namespace tensorbundle
