// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/data_type.h"

#include <array>
#include <iterator>

namespace tensorbundle {
namespace {

// tensorflow/core/framework/types.proto. The 2- and 4-bit types are stored one element per byte.
constexpr DataTypeInfo kDataTypes[] = {
    {1, "DT_FLOAT", 4, 4},
    {2, "DT_DOUBLE", 8, 8},
    {3, "DT_INT32", 4, 4},
    {4, "DT_UINT8", 1, 1},
    {5, "DT_INT16", 2, 2},
    {6, "DT_INT8", 1, 1},
    {7, "DT_STRING", 0, 1},
    {8, "DT_COMPLEX64", 8, 4},
    {9, "DT_INT64", 8, 8},
    {10, "DT_BOOL", 1, 1},
    {11, "DT_QINT8", 1, 1},
    {12, "DT_QUINT8", 1, 1},
    {13, "DT_QINT32", 4, 4},
    {14, "DT_BFLOAT16", 2, 2},
    {15, "DT_QINT16", 2, 2},
    {16, "DT_QUINT16", 2, 2},
    {17, "DT_UINT16", 2, 2},
    {18, "DT_COMPLEX128", 16, 8},
    {19, "DT_HALF", 2, 2},
    {21, "DT_VARIANT", 0, 1},
    {22, "DT_UINT32", 4, 4},
    {23, "DT_UINT64", 8, 8},
    {24, "DT_FLOAT8_E5M2", 1, 1},
    {25, "DT_FLOAT8_E4M3FN", 1, 1},
    {26, "DT_FLOAT8_E4M3FNUZ", 1, 1},
    {27, "DT_FLOAT8_E4M3B11FNUZ", 1, 1},
    {28, "DT_FLOAT8_E5M2FNUZ", 1, 1},
    {29, "DT_INT4", 1, 1},
    {30, "DT_UINT4", 1, 1},
    {31, "DT_INT2", 1, 1},
    {32, "DT_UINT2", 1, 1},
    {33, "DT_FLOAT4_E2M1FN", 1, 1},
};

// The index of a number in kDataTypes, or kNone. It is looked up for every record of an index.
constexpr size_t kNone = std::size(kDataTypes);
constexpr auto kIndexOfNumber = [] {
  std::array<uint8_t, kDataTypes[kNone - 1].number + 1> indices{};
  indices.fill(kNone);
  for (size_t i = 0; i < kNone; ++i) indices[kDataTypes[i].number] = static_cast<uint8_t>(i);
  return indices;
}();

}  // namespace

const DataTypeInfo* FindDataType(DataType type) {
  const auto number = static_cast<uint32_t>(type);  // a negative one is too large
  if (number >= kIndexOfNumber.size() || kIndexOfNumber[number] == kNone) return nullptr;
  return &kDataTypes[kIndexOfNumber[number]];
}

std::string DataTypeName(DataType type) {
  const DataTypeInfo* info = FindDataType(type);
  return info != nullptr ? info->name : "DT_" + std::to_string(static_cast<int32_t>(type));
}

}  // namespace tensorbundle
