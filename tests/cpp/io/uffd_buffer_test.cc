// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/uffd_buffer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <random>
#include <thread>
#include <vector>

#include "tensorbundle/base/parallel.h"

namespace tensorbundle {
namespace {

const auto kPage = static_cast<size_t>(::sysconf(_SC_PAGESIZE));

// Newly mapped memory without pages.
class UnpopulatedMemory {
 public:
  explicit UnpopulatedMemory(size_t size) : size_(size) {
    data_ = static_cast<uint8_t*>(
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  ~UnpopulatedMemory() { ::munmap(data_, size_); }
  MutableByteSpan bytes() const { return {data_, size_}; }

 private:
  uint8_t* data_;
  size_t size_;
};

std::vector<uint8_t> Pattern(size_t size) {
  std::mt19937 random(1);
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

const size_t kSize = UffdBuffer::kMinSize + 5 * kPage;
const std::vector<uint8_t> kWanted = Pattern(kSize);

// Cuts of [0, size) that fall on the memory's page borders, and its ends.
std::vector<size_t> CutsAtPages(MutableByteSpan memory, size_t pages) {
  std::vector<size_t> cuts{0};
  for (size_t at = UffdBuffer::UntilPage(memory.data()); at < memory.size(); at += pages * kPage) {
    if (at > 0) cuts.push_back(at);
  }
  cuts.push_back(memory.size());
  return cuts;
}

void WriteAll(UffdBuffer* buffer, MutableByteSpan memory, const std::vector<size_t>& cuts,
              int threads) {
  ParallelFor(cuts.size() - 1, threads, [&](size_t i) {
    buffer->Write(memory.data() + cuts[i],
                  ByteSpan(kWanted).subspan(cuts[i], cuts[i + 1] - cuts[i]));
  });
}

void ExpectWanted(ByteSpan memory) {
  EXPECT_EQ(std::memcmp(memory.data(), kWanted.data(), memory.size()), 0);
}

TEST(UffdBuffer, WritesAtAnyAlignment) {
  for (const size_t shift : {size_t{0}, size_t{1}, size_t{64}, kPage - 1}) {
    for (const size_t less : {size_t{0}, size_t{1}, kPage / 2}) {
      const UnpopulatedMemory pages(kSize + kPage);
      const MutableByteSpan memory = pages.bytes().subspan(shift, kSize - less);
      {
        UffdBuffer buffer(memory);
        WriteAll(&buffer, memory, CutsAtPages(memory, 16), 3);
      }
      ExpectWanted(memory);
    }
  }
}

TEST(UffdBuffer, LeavesNeighboursUnchanged) {
  const UnpopulatedMemory pages(kSize + 2 * kPage);
  const MutableByteSpan memory = pages.bytes().subspan(100, kSize);
  pages.bytes()[99] = 7;
  pages.bytes()[100 + kSize] = 8;
  {
    UffdBuffer buffer(memory);
    WriteAll(&buffer, memory, CutsAtPages(memory, 3), 2);
  }
  ExpectWanted(memory);
  EXPECT_EQ(pages.bytes()[99], 7);
  EXPECT_EQ(pages.bytes()[100 + kSize], 8);
}

TEST(UffdBuffer, OverwritesExistingPages) {
  const UnpopulatedMemory pages(kSize);
  const MutableByteSpan memory = pages.bytes();
  for (size_t page = 0; page < kSize / kPage; page += 3) memory[page * kPage] = 9;
  {
    UffdBuffer buffer(memory);
    WriteAll(&buffer, memory, CutsAtPages(memory, 8), 2);
  }
  ExpectWanted(memory);
}

TEST(UffdBuffer, WritesInsideAPageDoNotBlock) {
  std::mt19937 random(2);
  for (int round = 0; round < 20; ++round) {
    const UnpopulatedMemory pages(kSize);
    const MutableByteSpan memory = pages.bytes();
    std::vector<size_t> cuts{0, kSize};
    for (int i = 0; i < 20; ++i) cuts.push_back(random() % kSize);
    std::sort(cuts.begin(), cuts.end());
    {
      UffdBuffer buffer(memory);
      WriteAll(&buffer, memory, cuts, 4);
    }
    ExpectWanted(memory);
  }
}

TEST(UffdBuffer, SmallMemoryIsCopied) {
  const UnpopulatedMemory pages(2 * kPage);
  UffdBuffer buffer(pages.bytes());
  EXPECT_FALSE(buffer.is_enabled());
  buffer.Write(pages.bytes().data() + 3, ByteSpan(kWanted).first(100));
  EXPECT_EQ(std::memcmp(pages.bytes().data() + 3, kWanted.data(), 100), 0);
}

TEST(UffdBuffer, UnwrittenPagesAreZero) {
  const UnpopulatedMemory pages(kSize);
  {
    UffdBuffer buffer(pages.bytes());
  }
  EXPECT_EQ(pages.bytes()[kSize / 2], 0) << "the read must not block";
}

// A forked child inherits the descriptor and may keep it.
TEST(UffdBuffer, UnregistersDespiteAForkedChild) {
  for (const bool all_written : {true, false}) {
    const UnpopulatedMemory memory(kSize);
    pid_t child = -1;
    {
      UffdBuffer buffer(memory.bytes());
      if (!buffer.is_enabled()) GTEST_SKIP() << "userfaultfd is not available";
      child = ::fork();
      if (child == 0) {
        for (;;) ::pause();
      }
      ASSERT_GT(child, 0);
      if (all_written) WriteAll(&buffer, memory.bytes(), CutsAtPages(memory.bytes(), 16), 2);
    }
    // Returns a page to the system, as allocators do, and accesses it: that must not block.
    uint8_t* page =
        memory.bytes().data() + UffdBuffer::UntilPage(memory.bytes().data()) + 2 * kPage;
    ASSERT_EQ(::madvise(page, kPage, MADV_DONTNEED), 0);
    std::promise<uint8_t> touched;
    std::thread toucher([&] { touched.set_value(std::atomic_ref(*page).load()); });
    std::future<uint8_t> value = touched.get_future();
    EXPECT_EQ(value.wait_for(std::chrono::seconds(5)), std::future_status::ready);
    ::kill(child, SIGKILL);  // ends any registration
    ::waitpid(child, nullptr, 0);
    toucher.join();
    EXPECT_EQ(value.get(), 0);
  }
}

}  // namespace
}  // namespace tensorbundle
