// SPDX-License-Identifier: Apache-2.0
// Byte strings one behind the other, in memory that never moves.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace tensorbundle {

// What it hands out is valid as long as the arena, wherever that is moved to.
class ByteArena {
 public:
  // `expected` bytes in all are got at once. Too many cost nothing as long as nobody touches them.
  explicit ByteArena(size_t expected = 0) : next_size_(std::max(expected, kChunkSize)) {}

  // A copy of both texts, one behind the other.
  std::string_view Add(std::string_view text, std::string_view more = {}) {
    char* const copy = Allocate(text.size() + more.size());
    std::copy(more.begin(), more.end(), std::copy(text.begin(), text.end(), copy));
    return {copy, text.size() + more.size()};
  }

 private:
  struct Chunk {
    std::unique_ptr<char[]> bytes;
    size_t size;
    size_t used;
  };
  static constexpr size_t kChunkSize = 4096;
  static constexpr size_t kMaxGrowth = size_t{1} << 20;

  char* Allocate(size_t size) {
    if (chunks_.empty() || size > chunks_.back().size - chunks_.back().used) AddChunk(size);
    Chunk& chunk = chunks_.back();
    char* const room = chunk.bytes.get() + chunk.used;
    chunk.used += size;
    return room;
  }

  void AddChunk(size_t least) {
    const size_t size = std::max(least, next_size_);
    chunks_.push_back({std::make_unique_for_overwrite<char[]>(size), size, 0});
    next_size_ = std::min(2 * size, kMaxGrowth);
  }

  std::vector<Chunk> chunks_;
  size_t next_size_;
};

}  // namespace tensorbundle
