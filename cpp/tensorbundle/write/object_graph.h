// SPDX-License-Identifier: Apache-2.0
// An edited object graph: the message without the tensors that are left out, and with new names.
//
//   TrackableObjectGraph { repeated Node nodes = 1 {
//     repeated Child children = 1 { node_id = 1;  local_name = 2; }
//     repeated Attribute attributes = 2 { name = 1;  full_name = 2;  checkpoint_key = 3; }
//     repeated Slot slot_variables = 3 { original_variable_node_id = 1;  slot_name = 2;
//                                        slot_variable_node_id = 3; }
//     registered_saver = 4;  has_checkpoint_values = 5; } }
//
// (tensorflow/core/protobuf/trackable_object_graph.proto). Nodes refer to each other by position,
// so none is removed: a node that loses its last attribute, and has neither children nor a saver of
// its own, becomes unreachable, because the children and slots that refer to it are removed.
// tf.train.Checkpoint then treats its object as one that was not saved.
#pragma once

#include <map>
#include <set>
#include <string>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

struct ObjectGraphEdit {
  std::set<std::string, std::less<>> dropped_keys;
  std::map<std::string, std::string, std::less<>> renamed_keys;        // old to new
  std::map<std::string, std::string, std::less<>> renamed_full_names;  // old to new
};

// Returns the edited message. Other fields keep their values and their order, also unknown ones;
// without anything to edit, the result equals the message. Takes time and memory in proportion to
// the message, plus the new names.
// Throws: CorruptionError if the message is malformed.
std::string EditObjectGraph(ByteSpan graph, const ObjectGraphEdit& edit);

}  // namespace tensorbundle
