// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/x86_features.h"

#if defined(__x86_64__)

#include <cpuid.h>

#include <cstdint>

#include "tensorbundle/base/fork_lock.h"

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

X86Registers ReadX86Registers() {
  const Leaf first = Cpuid(1);
  const Leaf seventh = Cpuid(7);
  const uint32_t xcr0 = (first.ecx & kOsxsave) != 0 ? SavedState() : 0;
  return {first.ecx, seventh.ebx, seventh.ecx, xcr0};
}

bool HasSse42AndPclmul(const X86Registers& registers) {
  const uint32_t both = kSse42 | kPclmul;
  return (registers.leaf1_ecx & both) == both;
}

bool HasAvx512AndVpclmul(const X86Registers& registers) {
  return (registers.xcr0 & kAvx512State) == kAvx512State && (registers.leaf7_ebx & kAvx512f) != 0 &&
         (registers.leaf7_ecx & kVpclmul) != 0;
}

bool HasAvx512AndVpclmul() {
  constinit static FirstResult has;
  return has.Get([] { return HasAvx512AndVpclmul(ReadX86Registers()); }) != 0;
}

}  // namespace tensorbundle

#endif  // defined(__x86_64__)
