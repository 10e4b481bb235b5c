// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/catalog.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "random_boxes.h"
#include "tensorbundle/bundle/data_type.h"

namespace tensorbundle {
namespace {

TEST(Catalog, Find) {
  Catalog catalog;
  EXPECT_EQ(catalog.Find("a"), Catalog::kNotFound);
  const std::vector<std::string_view> names = {"",    std::string_view("\0", 1), "a", "ab", "b",
                                               "\xff"};
  for (const std::string_view name : names) catalog.tensors.push_back({.name = name});
  for (size_t i = 0; i < names.size(); ++i) EXPECT_EQ(catalog.Find(names[i]), i);
  for (const char* name : {"A", "aa", "abc", "c", "\xff\xff"}) {
    EXPECT_EQ(catalog.Find(name), Catalog::kNotFound) << name;
  }
}

TEST(Catalog, BoxOf) {
  Catalog catalog = testing::CatalogOf({4, 6}, {{{0, 2}, {0, 6}}, {{2, 2}, {0, 6}}});
  const Tensor& tensor = catalog.tensors[0];
  EXPECT_EQ(catalog.BoxOf(tensor, catalog.slices[1]), (Box{{2, 2}, {0, 6}}));
  catalog.slices[1].first_extent = StoredSlice::kWholeTensor;
  EXPECT_EQ(catalog.BoxOf(tensor, catalog.slices[1]), (Box{{0, 4}, {0, 6}}));
}

TEST(Extents, Intersect) {
  const Box a = {{0, 4}, {2, 4}};
  EXPECT_EQ(Intersect(a, Box{{3, 4}, {0, 3}}), (Box{{3, 1}, {2, 1}}));
  EXPECT_EQ(Intersect(a, a), a);
  EXPECT_EQ(Intersect(a, Box{{4, 1}, {2, 4}}), std::nullopt) << "beside each other";
  EXPECT_EQ(Intersect(a, Box{{0, 4}, {6, 1}}), std::nullopt);
  EXPECT_EQ(Intersect(a, Box{{0, 0}, {2, 4}}), std::nullopt) << "empty";
  EXPECT_EQ(Intersect(Box{}, Box{}), Box{}) << "scalars";
}

TEST(Extents, Text) {
  EXPECT_EQ(ToString(Box{{0, 4}, {2, 4}}), "[0:4, 2:6]");
  EXPECT_EQ(ToString(Box{}), "[]");
  EXPECT_EQ(ShapeToString(std::vector<int64_t>{2, -1}), "(2, -1)");
}

TEST(DataTypes, AreFoundByNumber) {
  for (int32_t number = 1; number <= 33; ++number) {
    if (number == 20) continue;  // DT_RESOURCE, which is not stored
    const DataTypeInfo* info = FindDataType(static_cast<DataType>(number));
    ASSERT_NE(info, nullptr) << number;
    EXPECT_EQ(info->number, number);
    EXPECT_EQ(DataTypeName(static_cast<DataType>(number)), info->name);
  }
  for (const int32_t number : {0, -1, 20, 34, 101, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(FindDataType(static_cast<DataType>(number)), nullptr) << number;
  }
}

// The numbers of TensorFlow's types with elements of each size, and those that are swapped in
// halves. The narrow types take one byte per element.
TEST(DataTypes, Sizes) {
  const std::map<int, std::vector<int32_t>> numbers = {
      {0, {7, 21}},
      {1, {4, 6, 10, 11, 12, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33}},
      {2, {5, 14, 15, 16, 17, 19}},
      {4, {1, 3, 13, 22}},
      {8, {2, 8, 9, 23}},
      {16, {18}},
  };
  size_t count = 0;
  for (const auto& [size, types] : numbers) {
    for (const int32_t number : types) {
      ++count;
      const DataTypeInfo& info = *FindDataType(static_cast<DataType>(number));
      EXPECT_EQ(info.item_size, size) << info.name;
      const bool is_complex = number == 8 || number == 18;
      EXPECT_EQ(info.swap_size, size == 0 ? 1 : is_complex ? size / 2 : size) << info.name;
    }
  }
  EXPECT_EQ(count, 32U);
}

}  // namespace
}  // namespace tensorbundle
