// SPDX-License-Identifier: Apache-2.0
// TensorFlow's element types, by their numbers in files.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace tensorbundle {

// Not every number is a type we know: a newer TensorFlow may write more, which makes a tensor
// unsupported, not the file corrupt.
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

// What a reader must know of a type.
struct DataTypeInfo {
  int32_t number;
  const char* name;   // as TensorFlow's enum spells it: DT_FLOAT
  uint8_t item_size;  // bytes of one stored element; 0 for strings and variants
  uint8_t
      swap_size;  // bytes that swap as a unit between byte orders: half an item for complex types
};

// Null for a number that is no storable type we know.
const DataTypeInfo* FindDataType(DataType type);
std::span<const DataTypeInfo> AllDataTypes();

// The name, or "DT_<number>" for one we do not know.
std::string DataTypeName(DataType type);

inline bool HasVariableSize(DataType type) {
  return type == DataType::kString || type == DataType::kVariant;
}

}  // namespace tensorbundle
