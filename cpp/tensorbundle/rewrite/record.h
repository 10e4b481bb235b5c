// SPDX-License-Identifier: Apache-2.0
// Index records with their tensor moved.
#pragma once

#include <cstdint>
#include <string>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// A BundleEntryProto that DecodeBundleEntry accepts, with another offset. Every other field is as
// it was, those that we do not know among them.
std::string WithOffset(ByteSpan record, uint64_t offset);

}  // namespace tensorbundle
