// SPDX-License-Identifier: Apache-2.0
// Instructions that the processor has and the system supports. __builtin_cpu_supports() is not
// used: some runtime libraries of compilers, such as Zig's, implement it as always false.
#pragma once

#if defined(__x86_64__)

#include <cstdint>

namespace tensorbundle {

// What a processor says of itself, and what the system set up. A leaf of CPUID that the processor
// does not have is 0 here, and so is XCR0 if the system does not allow to read it.
struct X86Registers {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0;
  uint32_t leaf7_ecx = 0;
  uint32_t xcr0 = 0;  // the registers that the system saves when it switches threads
};

// Returns those of this processor.
X86Registers ReadX86Registers();

// SSE4.2 and PCLMULQDQ.
bool HasSse42AndPclmul(const X86Registers& registers);

// AVX-512F and VPCLMULQDQ. The first processors with AVX-512 lack the latter.
bool HasAvx512AndVpclmul(const X86Registers& registers);

// The same of this processor, which is asked once.
bool HasAvx512AndVpclmul();

}  // namespace tensorbundle

#endif  // defined(__x86_64__)
