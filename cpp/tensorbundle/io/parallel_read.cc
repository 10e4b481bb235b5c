// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/parallel_read.h"

#include <algorithm>
#include <vector>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/parallel.h"

namespace tensorbundle {
namespace {

// Bytes whose checksums are held at the same time: a file may have too many chunks for all of them.
constexpr uint64_t kMaxTogether = uint64_t{4} << 30;

// A range cut into chunks. The last one may be short.
struct Chunks {
  uint64_t size;
  uint64_t chunk_size;

  size_t count() const { return static_cast<size_t>((size + chunk_size - 1) / chunk_size); }
  uint64_t start(size_t i) const { return i * chunk_size; }
  uint64_t length(size_t i) const { return std::min(chunk_size, size - start(i)); }
};

uint32_t CombineAll(const Chunks& chunks, const std::vector<uint32_t>& checksums) {
  uint32_t whole = 0;
  for (size_t i = 0; i < checksums.size(); ++i) {
    whole = crc32c::Combine(whole, checksums[i], chunks.length(i));
  }
  return whole;
}

}  // namespace

void ParallelRead(const File& file, uint64_t offset, MutableByteSpan out, int threads) {
  const Chunks chunks{out.size(), ChunkSizeOf(file)};
  ParallelFor(chunks.count(), threads, [&](size_t i) {
    file.ReadAt(offset + chunks.start(i), out.subspan(chunks.start(i), chunks.length(i)));
  });
}

uint32_t ParallelChecksum(const File& file, uint64_t offset, uint64_t size, int threads,
                          const std::function<void(uint64_t)>& progress) {
  uint32_t whole = 0;
  for (uint64_t done = 0; done < size; done += kMaxTogether) {
    const Chunks chunks{std::min(kMaxTogether, size - done), ChunkSizeOf(file)};
    std::vector<uint32_t> checksums(chunks.count());
    ParallelFor(chunks.count(), threads, [&](size_t i) {
      std::vector<uint8_t> part(chunks.length(i));
      file.ReadAt(offset + done + chunks.start(i), part);
      checksums[i] = crc32c::Value(part.data(), part.size());
      progress(part.size());
    });
    whole = crc32c::Combine(whole, CombineAll(chunks, checksums), chunks.size);
  }
  return whole;
}

}  // namespace tensorbundle
