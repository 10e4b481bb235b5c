// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/messages.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "table_builder.h"

namespace tensorbundle {
namespace {

using testing::BytesField;
using testing::VarintField;

using Names = std::vector<std::pair<std::string_view, std::string_view>>;

std::string Attribute(const std::string& full_name, const std::string& key) {
  return BytesField(
      2, BytesField(1, "VARIABLE_VALUE") + BytesField(2, full_name) + BytesField(3, key));
}

TEST(ObjectGraph, NamesInTheOrderOfTheGraph) {
  const std::string graph =
      BytesField(1, BytesField(1, VarintField(1, 1) + BytesField(2, "child"))) +
      BytesField(1, Attribute("b", "two/.A") + Attribute("a", "one/.A")) +
      BytesField(1, Attribute("c", "three/.A"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names,
            (Names{{"b", "two/.A"}, {"a", "one/.A"}, {"c", "three/.A"}}));
}

TEST(ObjectGraph, AllKeysOfASharedName) {
  const std::string graph =
      BytesField(1, Attribute("a", "one") + Attribute("a", "two") + Attribute("a", "one"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names, (Names{{"a", "one"}, {"a", "two"}, {"a", "one"}}));
}

TEST(ObjectGraph, AttributesWithoutBothNames) {
  const std::string graph = BytesField(1, Attribute("", "key") + Attribute("name", "")) +
                            BytesField(1, BytesField(2, "")) + BytesField(1, Attribute("a", "k"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names, (Names{{"a", "k"}}));
  EXPECT_TRUE(FullNames(AsBytes(graph)).complete);
  EXPECT_TRUE(FullNames({}).names.empty());
  EXPECT_TRUE(FullNames({}).complete);
}

TEST(ObjectGraph, MalformedPartsCostNothingElse) {
  const std::string graph =
      BytesField(1, BytesField(2, BytesField(2, "x") + BytesField(3, "y") + "\x0b")) +
      VarintField(1, 7) + BytesField(1, Attribute("a", "k"));
  EXPECT_EQ(FullNames(AsBytes(graph)).names, (Names{{"a", "k"}}));
  EXPECT_FALSE(FullNames(AsBytes(graph)).complete);
}

TEST(ObjectGraph, CutAtEveryLength) {
  const std::string graph = BytesField(1, Attribute("a", "k")) + BytesField(1, Attribute("b", "l"));
  for (size_t size = 0; size <= graph.size(); ++size) {
    const FullNameList list = FullNames(AsBytes(graph).first(size));
    EXPECT_LE(list.names.size(), 2U);
    EXPECT_EQ(list.names.size() == 2, size == graph.size()) << size;
    const bool between_nodes = size == 0 || size == graph.size() / 2 || size == graph.size();
    EXPECT_EQ(list.complete, between_nodes) << size;
  }
}

}  // namespace
}  // namespace tensorbundle
