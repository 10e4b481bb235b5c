// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/x86_features.h"

#if defined(__x86_64__)

#include <cpuid.h>

#include <cstdint>

namespace tensorbundle {
namespace {

// Bits of CPUID, leaf 1, register ECX.
constexpr uint32_t kPclmul = uint32_t{1} << 1;
constexpr uint32_t kSse42 = uint32_t{1} << 20;
constexpr uint32_t kOsxsave = uint32_t{1} << 27;
// Bits of leaf 7, registers EBX and ECX.
constexpr uint32_t kAvx512f = uint32_t{1} << 16;
constexpr uint32_t kVpclmul = uint32_t{1} << 10;
// Bits of XCR0: the system saves the registers of SSE, AVX and AVX-512.
constexpr uint32_t kAvx512State = 0xE6;

struct Leaf {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

// All zeros if the processor does not have the leaf.
Leaf Cpuid(uint32_t number) {
  Leaf leaf;
  if (__get_cpuid_count(number, 0, &leaf.eax, &leaf.ebx, &leaf.ecx, &leaf.edx) == 0) return {};
  return leaf;
}

// Requires: kOsxsave is set.
uint32_t SavedState() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

}  // namespace

bool HasSse42AndPclmul() {
  const uint32_t both = kSse42 | kPclmul;
  return (Cpuid(1).ecx & both) == both;
}

bool HasAvx512AndVpclmul() {
  if ((Cpuid(1).ecx & kOsxsave) == 0 || (SavedState() & kAvx512State) != kAvx512State) return false;
  const Leaf leaf = Cpuid(7);
  return (leaf.ebx & kAvx512f) != 0 && (leaf.ecx & kVpclmul) != 0;
}

}  // namespace tensorbundle

#endif  // defined(__x86_64__)
