// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/object_graph.h"

#include "tensorbundle/base/wire.h"

namespace tensorbundle {
namespace {

// TrackableObjectGraph.nodes, TrackableObject.attributes, SerializedTensor.{full_name,
// checkpoint_key}.
constexpr uint32_t kNodes = 1, kAttributes = 2, kFullName = 2, kCheckpointKey = 3;

void AddAttribute(ByteSpan attribute, FullNameList* list) {
  std::string_view full_name;
  std::string_view key;
  WireReader reader(attribute);
  WireField field;
  while (reader.Next(&field)) {
    if (field.Is(kFullName, WireType::kBytes)) full_name = AsText(field.bytes);
    if (field.Is(kCheckpointKey, WireType::kBytes)) key = AsText(field.bytes);
  }
  list->complete &= reader.ok();
  if (reader.ok() && !full_name.empty() && !key.empty()) list->names.emplace_back(full_name, key);
}

}  // namespace

FullNameList FullNames(ByteSpan object_graph) {
  FullNameList list;
  WireReader graph(object_graph);
  WireField node;
  while (graph.Next(&node)) {
    if (!node.Is(kNodes, WireType::kBytes)) continue;
    WireReader reader(node.bytes);
    WireField attribute;
    while (reader.Next(&attribute)) {
      if (attribute.Is(kAttributes, WireType::kBytes)) AddAttribute(attribute.bytes, &list);
    }
    list.complete &= reader.ok();
  }
  list.complete &= graph.ok();
  return list;
}

}  // namespace tensorbundle
