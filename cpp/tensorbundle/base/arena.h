// SPDX-License-Identifier: Apache-2.0
// An arena of byte strings: chunks of memory that never move, filled from front to back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace tensorbundle {

// Lifetime: returned strings are valid as long as the arena, also after the arena is moved.
class ByteArena {
 public:
  // Allocates the first `expected` bytes at once. Pages that are never used cost no memory.
  explicit ByteArena(size_t expected = 0) : next_size_(std::max(expected, kChunkSize)) {}

  // Returns a copy of `text` followed by `more`.
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
