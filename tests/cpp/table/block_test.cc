// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/block.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "table_builder.h"

namespace tensorbundle {
namespace {

using testing::AppendFixed32;
using testing::AppendVarint;
using testing::BlockBuilder;

using Entries = std::vector<std::pair<std::string, std::string>>;

// The entries of a block, or nothing when it is malformed.
std::optional<Entries> ReadAll(std::string_view block) {
  ByteArena keys;
  ExpansionLimit limit(block.size());
  BlockIterator iterator(&keys, &limit);
  iterator.Open(AsBytes(block));
  Entries entries;
  while (iterator.Next()) entries.emplace_back(iterator.key(), AsText(iterator.value()));
  EXPECT_FALSE(iterator.Next());
  if (iterator.error() != BlockIterator::Error::kNone) return std::nullopt;
  EXPECT_EQ(iterator.count(), entries.size());
  return entries;
}

std::string RawEntry(uint64_t shared, uint64_t key_size, uint64_t value_size,
                     std::string_view rest) {
  std::string bytes;
  AppendVarint(shared, &bytes);
  AppendVarint(key_size, &bytes);
  AppendVarint(value_size, &bytes);
  return bytes.append(rest);
}

std::string WithRestarts(std::string entries, const std::vector<uint32_t>& restarts) {
  for (const uint32_t restart : restarts) AppendFixed32(restart, &entries);
  AppendFixed32(static_cast<uint32_t>(restarts.size()), &entries);
  return entries;
}

TEST(Block, RoundTripForEveryRestartInterval) {
  Entries entries;
  for (int i = 0; i < 100; ++i) {
    entries.emplace_back("key" + std::to_string(1000 + i),
                         std::string(static_cast<size_t>(i), 'v'));
  }
  for (const int interval : {1, 2, 16, 1000}) {
    BlockBuilder builder(interval);
    for (const auto& [key, value] : entries) builder.Add(key, value);
    EXPECT_EQ(ReadAll(builder.Finish()), entries) << interval;
  }
}

TEST(Block, EmptyBlock) {
  EXPECT_EQ(ReadAll(WithRestarts("", {0})), Entries());
  EXPECT_EQ(ReadAll(""), std::nullopt);
  EXPECT_EQ(ReadAll(std::string(4, '\0')), std::nullopt);
  EXPECT_EQ(ReadAll(std::string(7, '\0')), std::nullopt);
  EXPECT_EQ(ReadAll(std::string(8, '\0')), std::nullopt) << "a block has one restart at least";
}

TEST(Block, CutAtEveryLength) {
  BlockBuilder builder(2);
  for (const char* key : {"a", "ab", "abc", "b"}) builder.Add(key, "value");
  const std::string block = builder.Finish();
  ASSERT_TRUE(ReadAll(block));
  for (size_t size = 0; size < block.size(); ++size) {
    EXPECT_EQ(ReadAll(block.substr(0, size)), std::nullopt) << size;
  }
}

TEST(Block, ChecksTheRestartArray) {
  const std::string one = RawEntry(0, 1, 1, "av");
  const std::string two = one + RawEntry(0, 1, 1, "bv");
  const std::string shares = one + RawEntry(1, 1, 1, "bv");
  const auto second = static_cast<uint32_t>(one.size());
  EXPECT_TRUE(ReadAll(WithRestarts(two, {0, second})));
  EXPECT_TRUE(ReadAll(WithRestarts(two, {0}))) << "an entry may share nothing without a restart";
  EXPECT_TRUE(ReadAll(WithRestarts(shares, {0})));
  EXPECT_FALSE(ReadAll(WithRestarts(shares, {0, second}))) << "a restart that shares";
  EXPECT_FALSE(ReadAll(WithRestarts(two, {})));
  EXPECT_FALSE(ReadAll(WithRestarts(two, {second}))) << "not from 0 on";
  EXPECT_FALSE(ReadAll(WithRestarts(two, {0, 0})));
  EXPECT_FALSE(ReadAll(WithRestarts(two, {0, second, second})));
  EXPECT_FALSE(ReadAll(WithRestarts(two, {0, second - 1}))) << "into an entry";
  EXPECT_FALSE(ReadAll(WithRestarts(two, {0, static_cast<uint32_t>(two.size())})));
  EXPECT_FALSE(ReadAll(WithRestarts(two, {0, UINT32_MAX})));
  EXPECT_FALSE(ReadAll(WithRestarts(two, {0, second, second - 1})));
}

TEST(Block, RestartCountBeyondTheBlock) {
  for (const uint32_t count : {3U, 1U << 30, 0x40000001U, 0x7fffffffU, 0xffffffffU}) {
    std::string block = RawEntry(0, 1, 1, "av");
    AppendFixed32(0, &block);
    AppendFixed32(count, &block);
    EXPECT_FALSE(ReadAll(block)) << count;
  }
}

TEST(Block, LengthsThatWrapIn32Bits) {
  const std::pair<uint64_t, uint64_t> sizes[] = {
      {0xffffffff, 2}, {2, 0xffffffff}, {0x80000000, 0x80000002}, {3, 0}, {0, 3}, {2, 1}};
  for (const auto& [key, value] : sizes) {
    EXPECT_FALSE(ReadAll(WithRestarts(RawEntry(0, key, value, "ab"), {0}))) << key << " " << value;
  }
  EXPECT_FALSE(ReadAll(WithRestarts(RawEntry(0, uint64_t{1} << 32, 1, "ab"), {0})));
}

// The error comes before the entry, not after it.
TEST(Block, EntryThatEndsInTheRestartArrayIsNotReturned) {
  for (uint64_t more = 1; more <= 8; ++more) {
    const std::string block = WithRestarts(RawEntry(0, 1, 1 + more, "av"), {0});
    ByteArena keys;
    ExpansionLimit limit(block.size());
    BlockIterator iterator(&keys, &limit);
    iterator.Open(AsBytes(block));
    EXPECT_FALSE(iterator.Next()) << more;
    EXPECT_EQ(iterator.count(), 0U);
    EXPECT_EQ(iterator.error(), BlockIterator::Error::kEntry);
  }
}

TEST(Block, FirstEntryCannotShare) {
  EXPECT_FALSE(ReadAll(WithRestarts(RawEntry(1, 1, 1, "ab"), {0})));
}

TEST(Block, TruncatedVarints) {
  EXPECT_FALSE(ReadAll(WithRestarts("\x80", {0})));
  EXPECT_FALSE(ReadAll(WithRestarts(std::string(5, '\xff') + "\x01", {0})));
  EXPECT_FALSE(ReadAll(WithRestarts(std::string("\0\0", 2), {0})));
}

TEST(ExpansionLimit, RefusesKeysBeyondTheLimit) {
  ExpansionLimit limit(0);
  EXPECT_FALSE(limit.Add(UINT64_MAX));
  EXPECT_FALSE(limit.Add(1 << 20)) << "a key costs more than its bytes";
  EXPECT_TRUE(limit.Add((1 << 20) - 200));
  EXPECT_FALSE(limit.Add(200));
}

TEST(ExpansionLimit, EmptyKeysCountToo) {
  ExpansionLimit limit(1000);
  uint64_t added = 0;
  while (limit.Add(0)) ++added;
  EXPECT_GT(added, 250U) << "a plain entry has four bytes";
  EXPECT_LT(added, 10'000U);
}

}  // namespace
}  // namespace tensorbundle
