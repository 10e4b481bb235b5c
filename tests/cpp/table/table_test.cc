// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/table.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "table_builder.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::AppendVarint;
using testing::BlockBuilder;
using testing::BlockPlace;
using testing::TableBuilder;

using Pairs = std::vector<std::pair<std::string, std::string>>;

std::shared_ptr<const MemorySource> Source(const std::string& file) {
  return std::make_shared<MemorySource>("f.index", std::vector<uint8_t>(file.begin(), file.end()));
}

Pairs ReadAll(const std::string& file) {
  const Table table = Table::Open(Source(file));
  const TableEntries entries = TableEntries::ReadAll(table);
  Pairs pairs;
  for (size_t i = 0; i < entries.size(); ++i) {
    pairs.emplace_back(entries.key(i), AsText(entries.value(i)));
    EXPECT_EQ(entries.Find(entries.key(i)), i);
  }
  return pairs;
}

// Returns the message of the CorruptionError of a read, or "" if the read succeeds.
std::string ErrorOf(const std::string& file) {
  try {
    ReadAll(file);
  } catch (const CorruptionError& error) {
    return error.what();
  }
  return "";
}

#define EXPECT_FAULT(file, part) \
  EXPECT_NE(ErrorOf(file).find(part), std::string::npos) << "found: " << ErrorOf(file)

// Builds a file of the given blocks, with the index block of the test.
class RawTable {
 public:
  BlockPlace Add(const std::string& block, char type = 0) {
    const BlockPlace place{file_.size(), block.size()};
    file_ += block + type + std::string(4, '\0');
    TableBuilder::FixChecksum(place, &file_);
    return place;
  }

  static std::string Handle(const BlockPlace& place) {
    std::string handle;
    AppendVarint(place.offset, &handle);
    AppendVarint(place.size, &handle);
    return handle;
  }

  std::string Finish(const Pairs& index) {
    const BlockPlace metaindex = Add(BlockBuilder(1).Finish());
    BlockBuilder builder(1);
    for (const auto& [separator, handle] : index) builder.Add(separator, handle);
    std::string footer = Handle(metaindex) + Handle(Add(builder.Finish()));
    footer.resize(40);
    return file_ + footer + "\x57\xfb\x80\x8b\x24\x75\x47\xdb";
  }

 private:
  std::string file_;
};

std::string BlockOf(const Pairs& pairs, int interval = 16) {
  BlockBuilder builder(interval);
  for (const auto& [key, value] : pairs) builder.Add(key, value);
  return builder.Finish();
}

TEST(TableFile, RoundTrip) {
  Pairs pairs = {{"", "header"}};
  for (int i = 0; i < 500; ++i)
    pairs.emplace_back("key" + std::to_string(1000 + i), std::string(20, 'v'));
  for (const size_t block_size : {size_t{1}, size_t{100}, size_t{1} << 18}) {
    for (const int interval : {1, 3, 16}) {
      TableBuilder builder(block_size, interval);
      for (const auto& [key, value] : pairs) builder.Add(key, value);
      EXPECT_EQ(ReadAll(builder.Finish()), pairs) << block_size << " " << interval;
    }
  }
}

TEST(TableFile, FindsNoAbsentKey) {
  TableBuilder builder(10);
  for (const char* key : {"b", "d", "f"}) builder.Add(key, "value");
  const Table table = Table::Open(Source(builder.Finish()));
  const TableEntries entries = TableEntries::ReadAll(table);
  for (const char* key : {"", "a", "c", "e", "g", "bb"}) EXPECT_EQ(entries.Find(key), 3U) << key;
}

TEST(TableFile, FindBlock) {
  RawTable raw;
  const auto a = raw.Add(BlockOf({{"b", "1"}}));
  const auto b = raw.Add(BlockOf({{"d", "2"}}));
  const Table table =
      Table::Open(Source(raw.Finish({{"c", RawTable::Handle(a)}, {"e", RawTable::Handle(b)}})));
  EXPECT_EQ(table.FindBlock("")->handle.offset, a.offset);
  EXPECT_EQ(table.FindBlock("c")->handle.offset, a.offset);
  EXPECT_EQ(table.FindBlock("ca")->handle.offset, b.offset);
  EXPECT_EQ(table.FindBlock("e")->handle.offset, b.offset);
  EXPECT_EQ(table.FindBlock("ea"), nullptr);
}

TEST(TableFile, NotATable) {
  EXPECT_FAULT("", "it has 0 bytes");
  EXPECT_FAULT(std::string(47, '\0'), "it has 47 bytes");
  EXPECT_FAULT(std::string(48, '\0'), "table magic");
  EXPECT_FAULT("version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 1\n",
               "git lfs pull");
}

TEST(TableFile, DetectsEveryFlippedBit) {
  TableBuilder builder(30, 2);
  builder.Add("", "header");
  for (const char* key : {"a", "ab", "abc", "b"}) builder.Add(key, "value");
  const std::string good = builder.Finish();
  ASSERT_EQ(ErrorOf(good), "");
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    EXPECT_NE(ErrorOf(bad), "") << "byte " << bit / 8 << ", bit " << bit % 8;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_NE(ErrorOf(good.substr(0, size)), "") << size;
    EXPECT_NE(ErrorOf(good.substr(good.size() - size)), "") << size;
  }
  EXPECT_NE(ErrorOf(good + '\0'), "");
}

TEST(TableFile, UnknownBlockType) {
  for (const char type : {'\2', '\4', '\xff'}) {
    RawTable raw;
    const auto block = raw.Add(BlockOf({{"a", "1"}}), type);
    EXPECT_FAULT(raw.Finish({{"b", RawTable::Handle(block)}}), "unknown block type");
  }
}

TEST(TableFile, SnappyBlocks) {
  const std::string block = BlockOf({{"a", "1"}, {"ab", "2"}});
  std::string stream;
  AppendVarint(block.size(), &stream);
  stream.push_back(static_cast<char>((block.size() - 1) << 2));
  stream += block;
  RawTable raw;
  const auto place = raw.Add(stream, 1);
  EXPECT_EQ(ReadAll(raw.Finish({{"b", RawTable::Handle(place)}})),
            (Pairs{{"a", "1"}, {"ab", "2"}}));
  RawTable broken;
  const auto at = broken.Add(stream.substr(0, stream.size() - 1), 1);
  EXPECT_FAULT(broken.Finish({{"b", RawTable::Handle(at)}}), "malformed Snappy");
  RawTable empty;
  const auto none = empty.Add(std::string(1, '\0'), 1);
  EXPECT_FAULT(empty.Finish({{"b", RawTable::Handle(none)}}), "is malformed");
}

TEST(TableFile, BlocksMustAscendAndBeDisjoint) {
  RawTable raw;
  const auto a = raw.Add(BlockOf({{"a", "1"}}));
  const auto c = raw.Add(BlockOf({{"c", "2"}}));
  const std::string ha = RawTable::Handle(a);
  const std::string hc = RawTable::Handle(c);
  EXPECT_EQ(ErrorOf(RawTable(raw).Finish({{"b", ha}, {"d", hc}})), "");
  EXPECT_EQ(ErrorOf(RawTable(raw).Finish({{"b", ha + "junk"}, {"d", hc}})), "")
      << "bytes after a handle are allowed";
  EXPECT_FAULT(RawTable(raw).Finish({{"b", hc}, {"d", ha}}), "is not between");
  EXPECT_FAULT(RawTable(raw).Finish({{"b", ha}, {"d", ha}}), "is not between");
  EXPECT_FAULT(RawTable(raw).Finish({{"b", RawTable::Handle({a.offset, a.size + 1})}, {"d", hc}}),
               "is not between");
  EXPECT_FAULT(RawTable(raw).Finish({{"b", RawTable::Handle({SIZE_MAX, SIZE_MAX})}}),
               "is not between");
  EXPECT_FAULT(RawTable(raw).Finish({{"b", "\xff"}}), "malformed block handle");
  EXPECT_FAULT(RawTable(raw).Finish({{"b", ""}}), "malformed block handle");
  EXPECT_FAULT(RawTable(raw).Finish({{"d", ha}, {"b", hc}}), "is out of order");
  EXPECT_FAULT(RawTable(raw).Finish({{"b", ha}, {"b", hc}}), "is out of order");
}

TEST(TableFile, SeparatorsMustSeparate) {
  RawTable raw;
  const auto a = raw.Add(BlockOf({{"a", "1"}, {"c", "2"}}));
  const auto e = raw.Add(BlockOf({{"e", "3"}}));
  const auto file = [&](const std::string& first, const std::string& second) {
    return RawTable(raw).Finish({{first, RawTable::Handle(a)}, {second, RawTable::Handle(e)}});
  };
  EXPECT_EQ(ErrorOf(file("c", "e")), "") << "a separator may be the last key";
  EXPECT_EQ(ErrorOf(file("d", "f")), "");
  EXPECT_FAULT(file("b", "f"), "greater than the block's separator");
  EXPECT_FAULT(file("d", "dd"), "greater than the block's separator");
  EXPECT_FAULT(file("e", "f"), "out of order");
  EXPECT_FAULT(file("ea", "f"), "out of order");
}

TEST(TableFile, KeysMustAscend) {
  const auto file = [](const Pairs& pairs) {
    RawTable raw;
    const auto place = raw.Add(BlockOf(pairs, 1));
    return raw.Finish({{"z", RawTable::Handle(place)}});
  };
  EXPECT_EQ(ErrorOf(file({{"", "1"}, {"a", "1"}})), "");
  EXPECT_FAULT(file({{"a", "1"}, {"a", "2"}}), "out of order");
  EXPECT_FAULT(file({{"b", "1"}, {"a", "2"}}), "out of order");
  EXPECT_FAULT(file({{"", "1"}, {"", "2"}}), "out of order");
  EXPECT_FAULT(file({{"\xff", "1"}, {"\x01", "2"}}), "out of order");
  EXPECT_FAULT(file({}), "malformed") << "a data block without entries";
}

TEST(TableFile, OnlyTheEmptyKey) {
  RawTable raw;
  const auto place = raw.Add(BlockOf({{"", "header"}}));
  EXPECT_EQ(ReadAll(raw.Finish({{"", RawTable::Handle(place)}})), (Pairs{{"", "header"}}))
      << "the shortest successor of the empty key is the empty key";
}

TEST(TableFile, NoBlocks) { EXPECT_EQ(ReadAll(RawTable().Finish({})), Pairs()); }

// Entries of 3 bytes that each repeat a long key: half a megabyte would expand to gigabytes.
TEST(TableFile, KeysBeyondTheExpansionLimit) {
  std::string block;
  const std::string long_key(200'000, 'k');
  AppendVarint(0, &block);
  AppendVarint(long_key.size(), &block);
  AppendVarint(0, &block);
  block += long_key;
  for (uint64_t size = long_key.size(); size < long_key.size() + 50'000; ++size) {
    AppendVarint(size, &block);
    block += std::string("\1\0x", 3);
  }
  block += std::string("\0\0\0\0\1\0\0\0", 8);
  RawTable raw;
  const auto place = raw.Add(block);
  EXPECT_FAULT(raw.Finish({{"z", RawTable::Handle(place)}}),
               "exceeds the limit of decompressed keys");
}

// One byte of a Snappy stream gives up to 22, in which an empty entry takes four: a small file
// could ask for hundreds of times its size in entries.
TEST(TableFile, SnappyEntriesBeyondTheExpansionLimit) {
  constexpr uint32_t kGroups = 40'000;
  std::string tail;  // the 15 later entries of every group: its 3-byte key, and one byte more
  for (char i = 0; i < 15; ++i) tail += std::string("\3\1\0", 3) + i;
  std::string stream;
  AppendVarint(uint64_t{kGroups} * (6 + tail.size()) + 8, &stream);
  for (uint32_t g = 0; g < kGroups; ++g) {
    const char head[] = {5 << 2,
                         0,
                         3,
                         0,
                         static_cast<char>(g >> 16),
                         static_cast<char>(g >> 8),
                         static_cast<char>(g)};
    stream.append(head, sizeof(head));
    if (g == 0) {
      stream.push_back(static_cast<char>((tail.size() - 1) << 2));
      stream += tail;
    } else {
      stream.push_back(static_cast<char>((tail.size() - 1) << 2 | 2));
      stream += std::string("\x42\0", 2);  // 66 back: the tail of the group before
    }
  }
  stream.push_back(7 << 2);
  stream += std::string("\0\0\0\0\1\0\0\0", 8);
  RawTable raw;
  const auto place = raw.Add(stream, 1);
  EXPECT_FAULT(raw.Finish({{"\xff", RawTable::Handle(place)}}),
               "exceeds the limit of decompressed keys");
}

}  // namespace
}  // namespace tensorbundle
