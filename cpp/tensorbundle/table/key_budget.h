// SPDX-License-Identifier: Apache-2.0
// A bound on what prefix compression, and Snappy around it, may expand to.
#pragma once

#include <cstdint>

namespace tensorbundle {

// Entries of a few bytes can each claim a key as long as the one before: a 256 KiB file could ask
// for gigabytes. Real checkpoints stay below a factor of ten (object-graph keys of 150 bytes
// beside records of 25). Every key also costs what its entry takes in memory: Snappy can pack
// hundreds of empty entries into a few bytes.
class KeyBudget {
 public:
  explicit KeyBudget(uint64_t file_size) : left_(kSlack + kMaxExpansion * file_size) {}

  // Whether one more key of `size` bytes is within the budget; takes it if so.
  bool Take(uint64_t size) {
    if (left_ < kEntryCost || size > left_ - kEntryCost) return false;
    left_ -= kEntryCost + size;
    return true;
  }

 private:
  static constexpr uint64_t kMaxExpansion = 32;
  static constexpr uint64_t kEntryCost = 128;  // an uncompressed entry has four bytes at least
  static constexpr uint64_t kSlack = uint64_t{1} << 20;
  uint64_t left_;
};

}  // namespace tensorbundle
