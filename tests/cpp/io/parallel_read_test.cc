// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/parallel_read.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

class ParallelReadTest : public ::testing::Test {
 protected:
  static std::string Random(size_t size) {
    std::mt19937 random(7);
    std::string text(size, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
  }

  const TempDir dir_;
  const std::string text_ = Random(3 * kReadChunkSize + 17);
  const std::shared_ptr<const File> file_ = File::Open(dir_.Write("f", text_));
};

TEST_F(ParallelReadTest, BytesAndChecksumOfAnyRange) {
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, kReadChunkSize - 1, 2 * kReadChunkSize}) {
    for (const uint64_t size : {uint64_t{0}, uint64_t{1}, kReadChunkSize - 1, kReadChunkSize,
                                kReadChunkSize + 1, text_.size() - offset}) {
      if (offset + size > text_.size()) continue;
      const std::string part = text_.substr(offset, size);
      const uint32_t crc = crc32c::Value(part.data(), part.size());
      for (const int threads : {1, 3}) {
        std::vector<uint8_t> plain(size);
        ParallelRead(*file_, offset, plain, threads);
        EXPECT_EQ(AsText(plain), part);
        std::atomic<uint64_t> progress{0};
        EXPECT_EQ(ParallelChecksum(*file_, offset, size, threads,
                                   [&](uint64_t bytes) { progress += bytes; }),
                  crc);
        EXPECT_EQ(progress.load(), size);
      }
    }
  }
}

TEST_F(ParallelReadTest, PastTheEnd) {
  std::vector<uint8_t> out(text_.size());
  EXPECT_THROW(ParallelRead(*file_, 1, out, 3), CorruptionError);
  EXPECT_THROW(ParallelChecksum(*file_, 1, text_.size(), 3, [](uint64_t) {}), CorruptionError);
}

TEST_F(ParallelReadTest, ProgressMayThrow) {
  EXPECT_THROW(ParallelChecksum(*file_, 0, text_.size(), 3,
                                [](uint64_t) { throw std::domain_error("enough"); }),
               std::domain_error);
}

}  // namespace
}  // namespace tensorbundle
