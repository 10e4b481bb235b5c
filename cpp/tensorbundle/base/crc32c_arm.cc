// SPDX-License-Identifier: Apache-2.0
// CRC-32C with the instructions of ARMv8. Empty on other processors.
#include "tensorbundle/base/crc32c_internal.h"

#if defined(__aarch64__)

#include <array>

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include "tensorbundle/base/coding.h"

// Compiled for the CRC extension regardless of the build flags; CanArmv8() guards the calls. The
// builtins replace <arm_acle.h>, which Clang disables unless the build flags name the extension.
#if defined(__clang__)
#define TENSORBUNDLE_CRC __attribute__((target("crc")))
#define TENSORBUNDLE_CRC_WORD __builtin_arm_crc32cd
#define TENSORBUNDLE_CRC_BYTE __builtin_arm_crc32cb
#else
#define TENSORBUNDLE_CRC __attribute__((target("+crc")))
#define TENSORBUNDLE_CRC_WORD __builtin_aarch64_crc32cx
#define TENSORBUNDLE_CRC_BYTE __builtin_aarch64_crc32cb
#endif

namespace tensorbundle::crc32c {
namespace {

constexpr size_t kWord = 8;       // bytes per instruction
constexpr size_t kStream = 1024;  // bytes; joining costs some 5% of three such streams

// Tables that move a register past one stream: [k][b] is b as byte k of the register, times
// x^(8 * kStream). Four lookups replace the carry-less multiplication, which is optional in ARMv8.
using SkipTables = std::array<std::array<uint32_t, 256>, 4>;

constexpr SkipTables kSkipStream = [] {
  SkipTables tables{};
  for (uint32_t k = 0; k < 4; ++k) {
    uint32_t image = Multiply(uint32_t{1} << (8 * k + 7), PowerOfX(8 * kStream));
    // From the lowest degree to the highest; every byte is a sum of these bits.
    for (uint32_t bit = 0x80; bit != 0; bit >>= 1) {
      for (uint32_t byte = 0; byte < 256; ++byte) {
        if ((byte & bit) != 0) tables[k][byte] ^= image;
      }
      image = TimesX(image);
    }
  }
  return tables;
}();

inline uint32_t SkipStream(uint32_t state) {
  return kSkipStream[0][state & 0xff] ^ kSkipStream[1][(state >> 8) & 0xff] ^
         kSkipStream[2][(state >> 16) & 0xff] ^ kSkipStream[3][state >> 24];
}

// The register after three adjacent streams, run side by side because an instruction takes about
// three cycles and one can start each cycle.
TENSORBUNDLE_CRC inline uint32_t ThreeStreams(uint32_t state, const uint8_t* data) {
  uint32_t first = state;
  uint32_t second = 0;
  uint32_t third = 0;
  for (const uint8_t* end = data + kStream; data != end; data += kWord) {
    first = TENSORBUNDLE_CRC_WORD(first, LoadFixed64(data));
    second = TENSORBUNDLE_CRC_WORD(second, LoadFixed64(data + kStream));
    third = TENSORBUNDLE_CRC_WORD(third, LoadFixed64(data + 2 * kStream));
  }
  return SkipStream(SkipStream(first) ^ second) ^ third;
}

}  // namespace

bool CanArmv8() {
#if defined(__ARM_FEATURE_CRC32)
  return true;  // the build requires it
#elif defined(__linux__)
  constexpr unsigned long kHwcapCrc32 = 1UL << 7;  // HWCAP_CRC32 of Linux, <asm/hwcap.h>
  return (getauxval(AT_HWCAP) & kHwcapCrc32) != 0;
#else
  return false;
#endif
}

TENSORBUNDLE_CRC uint32_t ExtendArmv8(uint32_t crc, const uint8_t* data, size_t n) {
  uint32_t state = ~crc;
  for (; n >= 3 * kStream; data += 3 * kStream, n -= 3 * kStream) state = ThreeStreams(state, data);
  for (; n >= kWord; data += kWord, n -= kWord)
    state = TENSORBUNDLE_CRC_WORD(state, LoadFixed64(data));
  for (; n != 0; ++data, --n) state = TENSORBUNDLE_CRC_BYTE(state, *data);
  return ~state;
}

}  // namespace tensorbundle::crc32c

#endif  // defined(__aarch64__)
