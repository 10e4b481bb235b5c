// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/parts_tensor.h"

#include <cstring>
#include <limits>
#include <string>

#include "tensorflow_op/slice_spec.h"

namespace tensorbundle::op {
namespace {

constexpr int64_t kColumns = 4;
constexpr size_t kRowSize = kColumns * sizeof(int64_t);

PartialChecksum PartOf(const int64_t (&row)[kColumns]) {
  for (const int64_t number : row) {
    if (number < 0) {
      throw OpError(Code::kInvalidArgument, "a part of a slice holds " + std::to_string(number));
    }
  }
  if (row[3] > std::numeric_limits<uint32_t>::max()) {
    throw OpError(Code::kInvalidArgument, std::to_string(row[3]) + " is no CRC32C");
  }
  return {static_cast<uint64_t>(row[0]), static_cast<uint64_t>(row[1]),
          static_cast<uint64_t>(row[2]), static_cast<uint32_t>(row[3])};
}

}  // namespace

void WriteParts(const Run& run, int index, std::span<const PartialChecksum> parts) {
  const int64_t dims[] = {static_cast<int64_t>(parts.size()), kColumns};
  const TensorPtr tensor = run.Allocate(index, static_cast<TypeNumber>(DataType::kInt64), dims);
  uint8_t* out = MutableBytesOf(tensor.get()).data();
  for (const PartialChecksum& part : parts) {
    const int64_t row[kColumns] = {static_cast<int64_t>(part.slice),
                                   static_cast<int64_t>(part.offset),
                                   static_cast<int64_t>(part.size), part.crc};
    std::memcpy(out, row, kRowSize);
    out += kRowSize;
  }
}

void AppendParts(const TF_Tensor* tensor, std::vector<PartialChecksum>* parts) {
  const std::vector<int64_t> dims = DimsOf(tensor);
  if (dims.size() != 2 || dims[1] != kColumns) {
    throw OpError(Code::kInvalidArgument, "parts have shape " + ShapeText(dims) +
                                              ", expected [n,4] from TensorbundleReadV1");
  }
  const uint8_t* in = BytesOf(tensor).data();
  for (int64_t i = 0; i < dims[0]; ++i, in += kRowSize) {
    int64_t row[kColumns];
    std::memcpy(row, in, kRowSize);
    parts->push_back(PartOf(row));
  }
}

}  // namespace tensorbundle::op
