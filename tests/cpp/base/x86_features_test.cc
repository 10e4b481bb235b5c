// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/x86_features.h"

#include <gtest/gtest.h>

#if defined(__x86_64__) && defined(__linux__)

#include <cstdint>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>

namespace tensorbundle {
namespace {

// The features of the first processor that the kernel lists.
std::set<std::string> KernelsFlags() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

TEST(X86Features, AreThoseThatTheKernelLists) {
  const std::set<std::string> flags = KernelsFlags();
  ASSERT_TRUE(flags.contains("sse2"));
  EXPECT_EQ(HasSse42AndPclmul(ReadX86Registers()),
            flags.contains("sse4_2") && flags.contains("pclmulqdq"));
  EXPECT_EQ(HasAvx512AndVpclmul(), flags.contains("avx512f") && flags.contains("vpclmulqdq"));
}

// ---- Other processors, by the bits of Intel's manual (volume 2, CPUID; volume 1, XCR0).

constexpr uint32_t Bit(int number) { return uint32_t{1} << number; }

constexpr X86Registers kAllBits{
    .leaf1_ecx = Bit(1) | Bit(20), .leaf7_ebx = Bit(16), .leaf7_ecx = Bit(10), .xcr0 = 0xE7};

TEST(X86Features, NeedEveryBit) {
  EXPECT_FALSE(HasSse42AndPclmul({}));
  EXPECT_FALSE(HasAvx512AndVpclmul({}));
  EXPECT_TRUE(HasSse42AndPclmul(kAllBits));
  EXPECT_TRUE(HasAvx512AndVpclmul(kAllBits));
  for (const int bit : {1, 20}) {
    X86Registers registers = kAllBits;
    registers.leaf1_ecx ^= Bit(bit);
    EXPECT_FALSE(HasSse42AndPclmul(registers)) << "without bit " << bit << " of leaf 1";
  }
  X86Registers without_avx512f = kAllBits;
  without_avx512f.leaf7_ebx = ~Bit(16);
  EXPECT_FALSE(HasAvx512AndVpclmul(without_avx512f));
  X86Registers without_vpclmulqdq = kAllBits;
  without_vpclmulqdq.leaf7_ecx = ~Bit(10);
  EXPECT_FALSE(HasAvx512AndVpclmul(without_vpclmulqdq));
}

// Without it, the first instruction of AVX-512 would end the process.
TEST(X86Features, NeedTheSystemToSaveEachKindOfRegister) {
  for (const int bit : {1, 2, 5, 6, 7}) {
    X86Registers registers = kAllBits;
    registers.xcr0 ^= Bit(bit);
    EXPECT_FALSE(HasAvx512AndVpclmul(registers)) << "without bit " << bit << " of XCR0";
  }
}

}  // namespace
}  // namespace tensorbundle

#endif  // defined(__x86_64__) && defined(__linux__)
