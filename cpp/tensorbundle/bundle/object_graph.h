// SPDX-License-Identifier: Apache-2.0
// The object graph that tf.train.Checkpoint stores beside its tensors, for the names in it:
// tensorflow/core/protobuf/trackable_object_graph.proto.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// The tensor that holds the serialized graph.
inline constexpr std::string_view kObjectGraphKey = "_CHECKPOINTABLE_OBJECT_GRAPH";

// What names an object graph gives to tensors.
struct FullNameList {
  // (full_name, checkpoint_key) of every attribute that has both, in the order of the graph. The
  // same name may have several keys. Both are borrowed from the message.
  std::vector<std::pair<std::string_view, std::string_view>> names;
  // False when parts of the message are malformed: they were left out, and names may be missing.
  bool complete = true;
};

// Reads the names in one flat pass over the nodes: cycles and sharing cannot matter.
FullNameList FullNames(ByteSpan object_graph);

}  // namespace tensorbundle
