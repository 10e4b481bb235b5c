// SPDX-License-Identifier: Apache-2.0
// The elements of a V1 record in row-major order: the value fields of
// tensorflow/core/framework/tensor.proto, packed or not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/wire.h"
#include "tensorbundle/bundle/data_type.h"

namespace tensorbundle {

// The field of TensorProto that stores a type.
struct ValueField {
  DataType dtype;
  uint32_t number;  // of the field
  WireType type;    // of one value that is not packed
  // The range of a varint that fits the type.
  int64_t min;
  int64_t max;

  // Whether the bytes of a packed field are the dense little-endian elements.
  bool is_dense() const { return type == WireType::kFixed32 || type == WireType::kFixed64; }
};

// Returns null for a type that V1 cannot store.
const ValueField* FindValueField(DataType dtype);

struct ValuesError {
  enum class Kind : uint8_t {
    kNone,
    kMalformed,       // the TensorProto
    kTooFew,          // values
    kTooMany,         // values
    kOtherField,      // elements in `field`, which is for another type
    kWireType,        // of a value
    kMalformedValue,  // a packed varint
    kTornValue,       // the size of a packed field is no multiple of the size of a value
    kRange,           // `value` does not fit the type
  };
  Kind kind = Kind::kNone;
  uint32_t field = 0;
  int64_t value = 0;
};

// Fills `elements` with the dense little-endian elements of a TensorProto. Returns an error unless
// it has exactly `num_elements` values of the type, each within its range, and no others. Memory:
// at most eight times the message, for any `num_elements`. Requires: `wanted` is the field of a
// type other than kString.
ValuesError DecodeValues(ByteSpan tensor_proto, const ValueField& wanted, uint64_t num_elements,
                         std::vector<uint8_t>* elements);

// As above, for strings.
ValuesError DecodeStringValues(ByteSpan tensor_proto, uint64_t num_elements,
                               std::vector<std::string>* elements);

}  // namespace tensorbundle
