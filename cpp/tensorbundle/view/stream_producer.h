// SPDX-License-Identifier: Apache-2.0
// What the thread of a stream does.
#pragma once

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/view/stream_state.h"

namespace tensorbundle {

// Reads everything that the state's options ask for and delivers it, until done or stopped. Never
// throws: errors are delivered too.
void ProduceItems(const Checkpoint& checkpoint, StreamState& state);

}  // namespace tensorbundle
