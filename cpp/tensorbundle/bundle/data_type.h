// SPDX-License-Identifier: Apache-2.0
// The table of TensorFlow's element types, by their numbers in files.
#pragma once

#include <cstdint>
#include <string>

namespace tensorbundle {

// A file may have other numbers: a tensor of a newer TensorFlow's type is unsupported, not corrupt.
enum class DataType : int32_t {
  kInvalid = 0,
  kFloat = 1,
  kDouble = 2,
  kInt32 = 3,
  kUint8 = 4,
  kInt16 = 5,
  kInt8 = 6,
  kString = 7,
  kComplex64 = 8,
  kInt64 = 9,
  kBool = 10,
  kQint8 = 11,
  kQuint8 = 12,
  kQint32 = 13,
  kQint16 = 15,
  kQuint16 = 16,
  kUint16 = 17,
  kComplex128 = 18,
  kHalf = 19,
  kVariant = 21,
};

// The properties of a type.
struct DataTypeInfo {
  int32_t number;
  const char* name;   // TensorFlow's name: DT_FLOAT
  uint8_t item_size;  // bytes of one stored element; 0 for strings and variants
  uint8_t swap_size;  // bytes that are swapped as a unit; half an item for complex types
};

// Returns the properties of a type, or null if the number is unknown or cannot be stored.
const DataTypeInfo* FindDataType(DataType type);

// Returns the name, or "DT_<number>" for an unknown number.
std::string DataTypeName(DataType type);

inline bool HasVariableSize(DataType type) {
  return type == DataType::kString || type == DataType::kVariant;
}

}  // namespace tensorbundle
