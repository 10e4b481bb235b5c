// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/format.h"

#include <gtest/gtest.h>

#include <string>

#include "table_builder.h"

namespace tensorbundle {
namespace {

using testing::AppendVarint;

std::string FooterOf(std::initializer_list<uint64_t> numbers) {
  std::string footer;
  for (const uint64_t number : numbers) AppendVarint(number, &footer);
  footer.resize(40);
  return footer + "\x57\xfb\x80\x8b\x24\x75\x47\xdb";
}

TEST(TableFormat, Footer) {
  const std::string bytes = FooterOf({47, 8, 60, 14});
  EXPECT_TRUE(HasTableMagic(AsBytes(bytes)));
  const auto footer = DecodeFooter(AsBytes(bytes));
  ASSERT_TRUE(footer);
  EXPECT_EQ(footer->metaindex.offset, 47U);
  EXPECT_EQ(footer->metaindex.size, 8U);
  EXPECT_EQ(footer->index.offset, 60U);
  EXPECT_EQ(footer->index.size, 14U);
}

TEST(TableFormat, LargestHandlesFillTheFooter) {
  const std::string bytes = FooterOf({UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX});
  ASSERT_EQ(bytes.size(), kFooterSize);
  const auto footer = DecodeFooter(AsBytes(bytes));
  ASSERT_TRUE(footer);
  EXPECT_EQ(footer->index.size, UINT64_MAX);
}

TEST(TableFormat, PaddingMustBeZero) {
  const std::string good = FooterOf({47, 8, 60, 14});
  for (size_t i = 4; i < 40; ++i) {
    std::string bad = good;
    bad[i] = 1;
    EXPECT_FALSE(DecodeFooter(AsBytes(bad))) << i;
  }
}

TEST(TableFormat, ChecksEveryBitOfTheMagic) {
  const std::string good = FooterOf({47, 8, 60, 14});
  for (size_t bit = 40 * 8; bit < 48 * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(HasTableMagic(AsBytes(bad))) << bit;
  }
  EXPECT_FALSE(HasTableMagic(AsBytes(good.substr(41))));
}

TEST(TableFormat, MalformedHandle) {
  BlockHandle handle{1, 2};
  const std::string garbage(20, '\xff');
  const uint8_t* p = AsBytes(garbage).data();
  EXPECT_EQ(DecodeBlockHandle(p, p + 20, &handle), nullptr);
  EXPECT_EQ(DecodeBlockHandle(p, p, &handle), nullptr);
  EXPECT_EQ(handle.offset, 1U);
  EXPECT_EQ(handle.size, 2U);
}

TEST(TableFormat, FitsBeforeDoesNotWrap) {
  EXPECT_TRUE((BlockHandle{0, 0}.FitsBefore(5)));
  EXPECT_FALSE((BlockHandle{0, 0}.FitsBefore(4)));
  EXPECT_FALSE((BlockHandle{0, 0}.FitsBefore(0)));
  EXPECT_TRUE((BlockHandle{10, 5}.FitsBefore(20)));
  EXPECT_FALSE((BlockHandle{10, 6}.FitsBefore(20)));
  EXPECT_FALSE((BlockHandle{UINT64_MAX, 1}.FitsBefore(20)));
  EXPECT_FALSE((BlockHandle{1, UINT64_MAX}.FitsBefore(20)));
  EXPECT_FALSE((BlockHandle{UINT64_MAX - 2, 2}.FitsBefore(20)));
  EXPECT_FALSE((BlockHandle{16, UINT64_MAX - 16}.FitsBefore(20)));
}

}  // namespace
}  // namespace tensorbundle
