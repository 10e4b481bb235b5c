// SPDX-License-Identifier: Apache-2.0
// The elements of a V1 record: the value fields of tensorflow/core/framework/tensor.proto, packed
// or not, in row-major order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/wire.h"
#include "tensorbundle/bundle/data_type.h"

namespace tensorbundle {

// How a V1 record stores a type.
struct ValueField {
  DataType dtype;
  uint32_t number;  // of the field in TensorProto
  WireType type;    // of one value when it is not packed
  // What a varint may be; anything else would not survive in the type.
  int64_t min;
  int64_t max;

  // Whether a packed field of this type is, byte for byte, the dense little-endian elements.
  bool is_dense() const { return type == WireType::kFixed32 || type == WireType::kFixed64; }
};

// Null for a type that V1 cannot hold.
const ValueField* FindValueField(DataType dtype);

// Fills `elements` with the dense little-endian elements of a TensorProto. Returns why it does not
// hold exactly that many values of the type, each within its range, and no others; or nothing.
// Memory is bounded by eight times the message, whatever `num_elements` claims. The type is one
// that FindValueField knows, and no string.
std::optional<std::string> DecodeValues(ByteSpan tensor_proto, const ValueField& wanted,
                                        uint64_t num_elements, std::vector<uint8_t>* elements);

// The same for strings.
std::optional<std::string> DecodeStringValues(ByteSpan tensor_proto, uint64_t num_elements,
                                              std::vector<std::string>* elements);

}  // namespace tensorbundle
