// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/object_graph.h"

#include <cstdint>
#include <string_view>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/wire.h"

namespace tensorbundle {
namespace {

// Field numbers.
constexpr uint32_t kNodes = 1;
namespace node_field {
constexpr uint32_t kChildren = 1, kAttributes = 2, kSlotVariables = 3, kRegisteredSaver = 4;
}
namespace child_field {
constexpr uint32_t kNodeId = 1;
}
namespace attribute_field {
constexpr uint32_t kFullName = 2, kCheckpointKey = 3;
}
namespace slot_field {
constexpr uint32_t kSlotVariableNodeId = 3;
}

void RequireWellFormed(const WireReader& reader) {
  if (!reader.ok()) {
    throw CorruptionError("the object graph is not a well-formed protobuf message");
  }
}

// Returns the last value of a varint field, as protobuf does, or 0.
uint64_t LastVarint(ByteSpan message, uint32_t number) {
  uint64_t value = 0;
  WireReader reader(message);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(number, WireType::kVarint)) value = field.value;
  }
  RequireWellFormed(reader);
  return value;
}

std::string_view KeyOf(ByteSpan attribute) {
  std::string_view key;
  WireReader reader(attribute);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(attribute_field::kCheckpointKey, WireType::kBytes)) key = AsText(field.bytes);
  }
  RequireWellFormed(reader);
  return key;
}

// Returns whether a node becomes unreachable: it has lost attributes, and has nothing else.
bool BecomesEmpty(ByteSpan node, const ObjectGraphEdit& edit) {
  bool has_lost = false;
  bool has_more = false;
  WireReader reader(node);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(node_field::kAttributes, WireType::kBytes)) {
      const bool is_dropped = edit.dropped_keys.contains(KeyOf(field.bytes));
      has_lost |= is_dropped;
      has_more |= !is_dropped;
    }
    has_more |=
        field.number == node_field::kChildren || field.number == node_field::kRegisteredSaver;
  }
  RequireWellFormed(reader);
  return has_lost && !has_more;
}

void PutNewName(const WireField& field,
                const std::map<std::string, std::string, std::less<>>& names, std::string* out) {
  const auto found = names.find(AsText(field.bytes));
  PutBytes(field.number, found == names.end() ? AsText(field.bytes) : found->second, out);
}

std::string EditAttribute(ByteSpan attribute, const ObjectGraphEdit& edit) {
  std::string result;
  WireReader reader(attribute);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(attribute_field::kFullName, WireType::kBytes)) {
      PutNewName(field, edit.renamed_full_names, &result);
    } else if (field.Is(attribute_field::kCheckpointKey, WireType::kBytes)) {
      PutNewName(field, edit.renamed_keys, &result);
    } else {
      PutField(field, &result);
    }
  }
  return result;  // KeyOf has found the message well-formed
}

std::string EditNode(ByteSpan node, const ObjectGraphEdit& edit, const std::vector<bool>& empty) {
  const auto refers_to_empty = [&](ByteSpan message, uint32_t number) {
    const uint64_t id = LastVarint(message, number);
    return id < empty.size() && empty[id];
  };
  std::string result;
  WireReader reader(node);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(node_field::kChildren, WireType::kBytes)) {
      if (refers_to_empty(field.bytes, child_field::kNodeId)) continue;
    } else if (field.Is(node_field::kSlotVariables, WireType::kBytes)) {
      if (refers_to_empty(field.bytes, slot_field::kSlotVariableNodeId)) continue;
    } else if (field.Is(node_field::kAttributes, WireType::kBytes)) {
      if (edit.dropped_keys.contains(KeyOf(field.bytes))) continue;
      PutBytes(field.number, EditAttribute(field.bytes, edit), &result);
      continue;
    }
    PutField(field, &result);
  }
  return result;
}

}  // namespace

std::string EditObjectGraph(ByteSpan graph, const ObjectGraphEdit& edit) {
  std::vector<bool> empty;
  WireReader nodes(graph);
  WireField field;
  while (nodes.Next(&field)) {
    if (field.Is(kNodes, WireType::kBytes)) empty.push_back(BecomesEmpty(field.bytes, edit));
  }
  RequireWellFormed(nodes);
  std::string result;
  result.reserve(graph.size());
  WireReader reader(graph);
  while (reader.Next(&field)) {
    if (field.Is(kNodes, WireType::kBytes)) {
      PutBytes(kNodes, EditNode(field.bytes, edit, empty), &result);
    } else {
      PutField(field, &result);
    }
  }
  return result;
}

}  // namespace tensorbundle
