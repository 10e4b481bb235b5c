// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/object_graph.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>

#include "bundle_builder.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BytesField;
using testing::VarintField;

std::string Child(uint64_t id, std::string_view name) {
  return BytesField(1, (id == 0 ? "" : VarintField(1, id)) + BytesField(2, name));
}

std::string Attribute(std::string_view full_name, std::string_view key) {
  return BytesField(
      2, BytesField(1, "VARIABLE_VALUE") + BytesField(2, full_name) + BytesField(3, key));
}

std::string Slot(uint64_t original, std::string_view name, uint64_t slot) {
  return BytesField(3, VarintField(1, original) + BytesField(2, name) + VarintField(3, slot));
}

std::string Node(const std::string& fields) { return BytesField(1, fields); }

std::string Edited(const std::string& graph, const ObjectGraphEdit& edit) {
  return EditObjectGraph(AsBytes(graph), edit);
}

// A root with a variable and an optimizer, which has a slot for the variable.
std::string Graph() {
  return Node(Child(1, "kernel") + Child(2, "optimizer")) + Node(Attribute("k", "kernel/V")) +
         Node(Slot(1, "m", 3) + Slot(1, "v", 4)) + Node(Attribute("Adam/k/m", "slot/m")) +
         Node(Attribute("Adam/k/v", "slot/v"));
}

TEST(EditObjectGraph, WithoutChangesIsTheMessage) {
  EXPECT_EQ(Edited(Graph(), {}), Graph());
  EXPECT_EQ(Edited("", {}), "");
  EXPECT_EQ(Edited(Graph(), {{"absent"}, {{"other", "x"}}, {{"none", "y"}}}), Graph());
}

TEST(EditObjectGraph, RenamesKeysAndFullNamesIndependently) {
  const std::string expected =
      Node(Child(1, "kernel") + Child(2, "optimizer")) + Node(Attribute("dense", "w")) +
      Node(Slot(1, "m", 3) + Slot(1, "v", 4)) + Node(Attribute("Adam/k/m", "slot/m")) +
      Node(Attribute("Adam/k/v", "slot/v"));
  EXPECT_EQ(Edited(Graph(), {{}, {{"kernel/V", "w"}, {"k", "wrong"}}, {{"k", "dense"}}}), expected);
}

TEST(EditObjectGraph, RemovesSlotsWithTheirVariables) {
  const std::string expected = Node(Child(1, "kernel") + Child(2, "optimizer")) +
                               Node(Attribute("k", "kernel/V")) + Node(Slot(1, "v", 4)) + Node("") +
                               Node(Attribute("Adam/k/v", "slot/v"));
  EXPECT_EQ(Edited(Graph(), {{"slot/m"}, {}, {}}), expected);
}

TEST(EditObjectGraph, RemovesChildrenThatLoseTheirOnlyValue) {
  const std::string expected =
      Node(Child(2, "optimizer")) + Node("") + Node(Slot(1, "m", 3) + Slot(1, "v", 4)) +
      Node(Attribute("Adam/k/m", "slot/m")) + Node(Attribute("Adam/k/v", "slot/v"));
  EXPECT_EQ(Edited(Graph(), {{"kernel/V"}, {}, {}}), expected);
}

TEST(EditObjectGraph, KeepsObjectsThatHaveMore) {
  const std::string saver = BytesField(4, BytesField(1, "saver"));
  for (const std::string& more : {Child(0, "up"), Attribute("b", "two"), saver}) {
    const std::string graph = Node(Child(1, "x")) + Node(Attribute("a", "one") + more);
    EXPECT_EQ(Edited(graph, {{"one"}, {}, {}}), Node(Child(1, "x")) + Node(more));
  }
  // An object without values of its own is not touched.
  const std::string plain = Node(Child(1, "x")) + Node("") + Node(Attribute("a", "one"));
  EXPECT_EQ(Edited(plain, {{"one"}, {}, {}}), Node(Child(1, "x")) + Node("") + Node(""));
}

TEST(EditObjectGraph, KeepsUnknownFieldsAndTheirOrder) {
  const std::string unknown = VarintField(9, 7) + BytesField(10, "text");
  const std::string attribute = BytesField(2, unknown + BytesField(3, "key") + unknown);
  const std::string renamed = BytesField(2, unknown + BytesField(3, "new") + unknown);
  EXPECT_EQ(
      Edited(unknown + Node(unknown + attribute + unknown) + unknown, {{}, {{"key", "new"}}, {}}),
      unknown + Node(unknown + renamed + unknown) + unknown);
}

TEST(EditObjectGraph, IgnoresReferencesToNodesThatDoNotExist) {
  const std::string graph = Node(Child(99, "x") + Child(UINT64_MAX, "y") + Slot(5, "m", 1 << 30));
  EXPECT_EQ(Edited(graph, {{"key"}, {}, {}}), graph);
}

TEST(EditObjectGraph, LastOfRepeatedFieldsCounts) {
  const std::string attribute = BytesField(2, BytesField(3, "first") + BytesField(3, "last"));
  const std::string graph = Node(attribute);
  EXPECT_EQ(Edited(graph, {{"first"}, {}, {}}), graph);
  EXPECT_EQ(Edited(graph, {{"last"}, {}, {}}), Node(""));
  // The node of a child: node 1 becomes empty, node 2 stays.
  const auto child = [](uint64_t first, uint64_t last) {
    return BytesField(1, VarintField(1, first) + VarintField(1, last));
  };
  const std::string nodes = Node(Attribute("a", "one")) + Node(Attribute("b", "two"));
  const std::string left = Node("") + Node(Attribute("b", "two"));
  EXPECT_EQ(Edited(Node(child(1, 2)) + nodes, {{"one"}, {}, {}}), Node(child(1, 2)) + left);
  EXPECT_EQ(Edited(Node(child(2, 1)) + nodes, {{"one"}, {}, {}}), Node("") + left);
}

TEST(EditObjectGraph, EveryTruncationIsRefusedOrEditedAsFarAsItIsWhole) {
  const std::string graph = Graph();
  for (size_t size = 0; size < graph.size(); ++size) {
    const std::string part = graph.substr(0, size);
    try {
      EXPECT_LE(Edited(part, {{"slot/m"}, {}, {}}).size(), size);
    } catch (const CorruptionError&) {
    }
  }
}

TEST(EditObjectGraph, RandomBytesNeverCrash) {
  std::mt19937 random(1);
  std::string graph = Graph();
  const ObjectGraphEdit edit{{"slot/m", "kernel/V"}, {{"slot/v", "v"}}, {{"k", "dense"}}};
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = graph;
    for (unsigned i = 0; i <= random() % 4; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    try {
      EXPECT_LE(Edited(bytes, edit).size(),
                bytes.size() + 2 * edit.renamed_full_names.size() * 100);
    } catch (const CorruptionError&) {
    }
  }
}

}  // namespace
}  // namespace tensorbundle
