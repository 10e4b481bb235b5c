// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/messages.h"

#include <gtest/gtest.h>

#include <string>

#include "bundle_builder.h"
#include "table_builder.h"

namespace tensorbundle {
namespace {

using testing::BytesField;
using testing::Fixed32Field;
using testing::Record;
using testing::VarintField;

TEST(WithOffset, ReplacesAddsAndDropsIt) {
  Record record{.dtype = DataType::kInt32, .dims = {2, 3}, .shard = 4, .offset = 300, .size = 24};
  for (const uint64_t from : {uint64_t{0}, uint64_t{300}}) {
    for (const uint64_t to : {uint64_t{0}, uint64_t{64}, uint64_t{INT64_MAX}}) {
      record.offset = from;
      const std::string before = record.Message();
      record.offset = to;
      EXPECT_EQ(WithOffset(AsBytes(before), to), record.Message());
    }
  }
}

TEST(WithOffset, KeepsWhatItDoesNotKnow) {
  const std::string fixed64 = std::string("\x59", 1) + "12345678";  // field 11
  const std::string unknown = BytesField(8, "later") + VarintField(9, 1) + Fixed32Field(10, 2);
  const std::string before = VarintField(1, 3) + VarintField(4, 7) + unknown + fixed64;
  EXPECT_EQ(WithOffset(AsBytes(before), 128),
            VarintField(1, 3) + VarintField(4, 128) + unknown + fixed64);
}

TEST(WithOffset, AnOffsetBehindEverythingElse) {
  BundleEntry entry;
  const std::string after = WithOffset(AsBytes(VarintField(1, 3)), 192);
  ASSERT_TRUE(DecodeBundleEntry(AsBytes(after), &entry));
  EXPECT_EQ(entry.offset, 192);
  EXPECT_EQ(entry.dtype, 3);
}

}  // namespace
}  // namespace tensorbundle
