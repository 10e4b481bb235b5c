// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/crc32c.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/crc32c_internal.h"

namespace tensorbundle::crc32c {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kLargeSize = (size_t{3} << 20) + 17;
constexpr size_t kSmallSize = 4096;  // tried in full, at every alignment
constexpr size_t kAlignments = 16;

// The reference: bit by bit, as in RFC 3720.
uint32_t BitwiseStep(uint32_t state, uint8_t byte) {
  state ^= byte;
  for (int bit = 0; bit < 8; ++bit)
    state = (state & 1) != 0 ? (state >> 1) ^ 0x82F63B78 : state >> 1;
  return state;
}

// Random bytes, and the CRC of each of their prefixes.
struct Sample {
  Bytes bytes;
  std::vector<uint32_t> crc;  // [n] is that of the first n bytes
};

const Sample& LargeSample() {
  static const Sample sample = [] {
    Sample made{Bytes(kLargeSize), {0}};
    std::mt19937 random(20150911);
    std::generate(made.bytes.begin(), made.bytes.end(),
                  [&] { return static_cast<uint8_t>(random()); });
    made.crc.reserve(kLargeSize + 1);
    uint32_t state = ~uint32_t{0};
    for (const uint8_t byte : made.bytes) {
      state = BitwiseStep(state, byte);
      made.crc.push_back(~state);
    }
    return made;
  }();
  return sample;
}

Bytes Ascending() {
  Bytes bytes(32);
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  return bytes;
}

// The SCSI Read (10) command of RFC 3720, B.4.
Bytes ReadCommand() {
  Bytes bytes(48);
  for (const auto& [at, value] : {std::pair<size_t, uint8_t>{0, 0x01},
                                  {1, 0xC0},
                                  {16, 0x14},
                                  {22, 0x04},
                                  {27, 0x14},
                                  {31, 0x18},
                                  {32, 0x28},
                                  {40, 0x02}}) {
    bytes[at] = value;
  }
  return bytes;
}

class Crc32cImplementationTest : public testing::TestWithParam<Implementation> {
 protected:
  static uint32_t Extend(uint32_t crc, const uint8_t* data, size_t n) {
    return GetParam().extend(crc, data, n);
  }
  static uint32_t Value(const Bytes& bytes) { return Extend(0, bytes.data(), bytes.size()); }
};

TEST_P(Crc32cImplementationTest, GivesThePublishedValues) {
  const std::string_view digits = "123456789";
  EXPECT_EQ(Value(Bytes(digits.begin(), digits.end())), 0xE3069283u);
  EXPECT_EQ(Value(Bytes(32, 0x00)), 0x8A9136AAu);
  EXPECT_EQ(Value(Bytes(32, 0xFF)), 0x62A8AB43u);
  const Bytes ascending = Ascending();
  EXPECT_EQ(Value(ascending), 0x46DD794Eu);
  EXPECT_EQ(Value(Bytes(ascending.rbegin(), ascending.rend())), 0x113FDB5Cu);
  EXPECT_EQ(Value(ReadCommand()), 0xD9963A56u);
}

TEST_P(Crc32cImplementationTest, EmptyDataChangesNothing) {
  EXPECT_EQ(Extend(0, nullptr, 0), 0u);
  EXPECT_EQ(Extend(0x12345678, nullptr, 0), 0x12345678u);
}

// The bytes end at the end of their allocation, so that AddressSanitizer detects reads beyond them.
TEST_P(Crc32cImplementationTest, EverySmallSizeAtEveryAlignment) {
  const Sample& sample = LargeSample();
  for (size_t alignment = 0; alignment < kAlignments; ++alignment) {
    for (size_t size = 0; size <= kSmallSize; ++size) {
      Bytes placed(alignment + size);
      std::copy_n(sample.bytes.begin(), size, placed.begin() + static_cast<ptrdiff_t>(alignment));
      ASSERT_EQ(Extend(0, placed.data() + alignment, size), sample.crc[size])
          << size << " bytes at alignment " << alignment;
    }
  }
}

TEST_P(Crc32cImplementationTest, MegabytesAtSomeAlignments) {
  const Sample& sample = LargeSample();
  for (const size_t alignment : {0u, 1u, 7u, 8u, 13u, 63u}) {
    Bytes placed(alignment + kLargeSize);
    std::copy(sample.bytes.begin(), sample.bytes.end(),
              placed.begin() + static_cast<ptrdiff_t>(alignment));
    for (const size_t size :
         {kLargeSize, kLargeSize - 17, kLargeSize / 2, size_t{262144}, size_t{99999}}) {
      ASSERT_EQ(Extend(0, placed.data() + alignment, size), sample.crc[size])
          << size << " bytes at alignment " << alignment;
    }
  }
}

TEST_P(Crc32cImplementationTest, SplitDataGivesTheSameValue) {
  const Sample& sample = LargeSample();
  const uint8_t* data = sample.bytes.data();
  std::mt19937 random(7);
  for (const size_t limit : {size_t{40}, size_t{700}, size_t{20000}, kLargeSize}) {
    for (int round = 0; round < 200; ++round) {
      const size_t size = random() % (limit + 1);
      const size_t split = round % 8 == 0 ? size : random() % (size + 1);
      ASSERT_EQ(Extend(sample.crc[split], data + split, size - split), sample.crc[size])
          << split << " bytes, then " << size - split;
    }
  }
}

std::string NameOf(const testing::TestParamInfo<Implementation>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '.', '_');  // GoogleTest refuses it
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, Crc32cImplementationTest,
                         testing::ValuesIn(Implementations().begin(), Implementations().end()),
                         NameOf);

TEST(Crc32cTest, PortableIsLast) {
  ASSERT_FALSE(Implementations().empty());
  EXPECT_STREQ(Implementations().back().name, "portable");
  EXPECT_STREQ(ActiveName(), Implementations().front().name);
}

#if defined(__x86_64__)
TEST(Crc32cTest, ChoosesByTheRegistersOfTheProcessor) {
  constexpr uint32_t kAll = ~uint32_t{0};
  EXPECT_EQ(Fastest({kAll, kAll, kAll, kAll}), 0U);
  EXPECT_EQ(Fastest({kAll, kAll, kAll, 0}), 1U) << "the system does not save AVX-512's registers";
  EXPECT_EQ(Fastest({0, kAll, kAll, kAll}), 2U);
  EXPECT_EQ(Fastest({}), 2U);
}
#endif

TEST(Crc32cTest, DispatchesToOneOfThem) {
  const Sample& sample = LargeSample();
  EXPECT_EQ(Value(sample.bytes.data(), kLargeSize), sample.crc[kLargeSize]);
  EXPECT_EQ(Extend(sample.crc[1000], sample.bytes.data() + 1000, 5000), sample.crc[6000]);
  EXPECT_EQ(Value(nullptr, 0), 0u);
}

TEST(Crc32cTest, MaskMatchesTheFormat) {
  static_assert(Mask(0) == 0xA282EAD8u);      // stored for every tensor of no bytes
  static_assert(Unmask(0) == 0x8A942EBEu);    // the value of an absent field
  EXPECT_EQ(Mask(0x00008000u), 0xA282EAD9u);  // bit 15 moves to bit 0
  EXPECT_EQ(Mask(0xFFFFFFFFu), 0xA282EAD7u);  // wraps
}

TEST(Crc32cTest, UnmaskUndoesMask) {
  std::mt19937 random(11);
  for (int round = 0; round < 10000; ++round) {
    const auto crc = static_cast<uint32_t>(random());
    ASSERT_EQ(Unmask(Mask(crc)), crc);
    ASSERT_EQ(Mask(Unmask(crc)), crc);
    ASSERT_NE(Mask(crc), crc);
  }
}

TEST(Crc32cCombineTest, RandomSplits) {
  const Sample& sample = LargeSample();
  std::mt19937 random(13);
  for (int round = 0; round < 500; ++round) {
    const size_t size = random() % (kLargeSize + 1);
    const size_t split = random() % (size + 1);
    const uint32_t crc_b = Value(sample.bytes.data() + split, size - split);
    ASSERT_EQ(Combine(sample.crc[split], crc_b, size - split), sample.crc[size])
        << split << " bytes, then " << size - split;
  }
}

TEST(Crc32cCombineTest, EmptyParts) {
  const uint32_t crc = LargeSample().crc[1234];
  EXPECT_EQ(Combine(crc, 0, 0), crc);
  EXPECT_EQ(Combine(0, crc, 1234), crc);
  EXPECT_EQ(Combine(0, 0, 0), 0u);
}

// The expected value is that of another implementation (google-crc32c) for that many zeros.
TEST(Crc32cCombineTest, FourGibibytesOfZerosAndSomeMore) {
  constexpr uint64_t kFourGibibytes = uint64_t{1} << 32;
  const Bytes zeros(1 << 20);
  const uint32_t few = Value(zeros.data(), 12345);
  uint32_t many = Value(zeros.data(), zeros.size());
  for (uint64_t size = zeros.size(); size < kFourGibibytes; size *= 2)
    many = Combine(many, many, size);
  EXPECT_EQ(Combine(many, few, 12345), 0xA3CF1B63u);
  EXPECT_EQ(Combine(few, many, kFourGibibytes), 0xA3CF1B63u);
}

// With the tests of small sizes, this proves all sizes, which are sums of small ones.
TEST(Crc32cCombineTest, IsAssociative) {
  std::mt19937_64 random(17);
  for (int round = 0; round < 2000; ++round) {
    const uint64_t size_b = random() >> (1 + random() % 40);
    const uint64_t size_c = random() >> (1 + random() % 40);
    const auto a = static_cast<uint32_t>(random());
    const auto b = static_cast<uint32_t>(random());
    const auto c = static_cast<uint32_t>(random());
    ASSERT_EQ(Combine(Combine(a, b, size_b), c, size_c),
              Combine(a, Combine(b, c, size_c), size_b + size_c))
        << "sizes " << size_b << " and " << size_c;
  }
}

TEST(Crc32cCombineTest, LargestSize) {
  constexpr uint64_t kLargest = std::numeric_limits<uint64_t>::max();
  const uint32_t stepped = Combine(Combine(0x12345678, 0, kLargest - 1), 0, 1);
  EXPECT_EQ(Combine(0x12345678, 0, kLargest), stepped);
  EXPECT_NE(stepped, 0x12345678u);
}

}  // namespace
}  // namespace tensorbundle::crc32c
