// SPDX-License-Identifier: Apache-2.0
// Instructions that the processor has and the system supports. __builtin_cpu_supports() is not
// used: some runtime libraries of compilers, such as Zig's, implement it as always false.
#pragma once

#if defined(__x86_64__)

namespace tensorbundle {

// SSE4.2 and PCLMULQDQ.
bool HasSse42AndPclmul();

// AVX-512F and VPCLMULQDQ. The first processors with AVX-512 lack the latter.
bool HasAvx512AndVpclmul();

}  // namespace tensorbundle

#endif  // defined(__x86_64__)
