// SPDX-License-Identifier: Apache-2.0
// A driver of fuzz targets without a fuzzer: runs the files and directories on the command line,
// every prefix of each file, and each file with one byte changed; and mutations of each file by the
// target's own mutator, if it has one. After --as-is, the files only, for targets that take long.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                                                size_t max_size, unsigned seed);

// libFuzzer's mutation, for mutators of targets: here, one byte is changed or removed.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t) {
  static std::minstd_rand random(1);
  if (size == 0) return 0;
  if (random() % 4 == 0) return size - 1;
  data[random() % size] = static_cast<uint8_t>(random());
  return size;
}

namespace {

constexpr size_t kMaxVaried = 1024;  // larger inputs are run as they are

size_t RunVariations(std::vector<uint8_t> input) {
  size_t count = 0;
  for (size_t size = 0; size < input.size(); ++size, ++count) {
    // A copy, so that a sanitizer detects reads past its end.
    const std::vector<uint8_t> prefix(input.begin(), input.begin() + static_cast<ptrdiff_t>(size));
    LLVMFuzzerTestOneInput(prefix.data(), prefix.size());
  }
  for (uint8_t& byte : input) {
    for (const uint8_t change : {uint8_t{0x01}, uint8_t{0x80}, uint8_t{0xff}}) {
      byte ^= change;
      LLVMFuzzerTestOneInput(input.data(), input.size());
      byte ^= change;
      ++count;
    }
  }
  return count;
}

size_t RunMutations(const std::vector<uint8_t>& input) {
  constexpr unsigned kMutations = 50;
  if (LLVMFuzzerCustomMutator == nullptr) return 0;
  for (unsigned seed = 1; seed <= kMutations; ++seed) {
    std::vector<uint8_t> mutated = input;
    mutated.resize(input.size() + kMaxVaried);
    mutated.resize(LLVMFuzzerCustomMutator(mutated.data(), input.size(), mutated.size(), seed));
    LLVMFuzzerTestOneInput(mutated.data(), mutated.size());
  }
  return kMutations;
}

size_t RunFile(const std::filesystem::path& path, bool as_is) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<uint8_t> input{std::istreambuf_iterator<char>(file), {}};
  LLVMFuzzerTestOneInput(input.data(), input.size());
  if (as_is) return 1;
  return 1 + RunMutations(input) + (input.size() <= kMaxVaried ? RunVariations(input) : 0);
}

}  // namespace

int main(int argc, char** argv) {
  size_t count = 0;
  bool as_is = false;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--as-is") {
      as_is = true;
      continue;
    }
    if (!std::filesystem::is_directory(argv[i])) {
      count += RunFile(argv[i], as_is);
      continue;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (entry.is_regular_file()) count += RunFile(entry.path(), as_is);
    }
  }
  std::cout << count << " inputs\n";
  return count == 0 ? 1 : 0;  // an empty corpus is an error
}
