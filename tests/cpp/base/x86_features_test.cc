// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/x86_features.h"

#include <gtest/gtest.h>

#if defined(__x86_64__) && defined(__linux__)

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
  EXPECT_EQ(HasSse42AndPclmul(), flags.contains("sse4_2") && flags.contains("pclmulqdq"));
  EXPECT_EQ(HasAvx512AndVpclmul(), flags.contains("avx512f") && flags.contains("vpclmulqdq"));
}

}  // namespace
}  // namespace tensorbundle

#endif  // defined(__x86_64__) && defined(__linux__)
