// SPDX-License-Identifier: Apache-2.0
// The bytes are a V1 checkpoint or a part of one. The first byte selects which:
//
//   0  a file, whose checksums are corrected
//   1  records of a valid table: the meta, then messages of slices, which get their right keys
//   2  a type, a number of elements, and a TensorProto to decode them from
//
// Everything that opens is verified and read.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "catalog_checks.h"
#include "fuzz_input.h"
#include "table_mutator.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/v1_checkpoint.h"
#include "tensorbundle/v1/values.h"

namespace tensorbundle::fuzz {
namespace {

constexpr size_t kMaxRecords = 64;
constexpr uint64_t kMaxRead = 1 << 16;  // bytes of a tensor

std::string OfRecords(Input input) {
  Records records;
  records[""] = input.String();
  while (input.more() && records.size() < kMaxRecords) {
    const std::string value(input.String());
    const auto slice = DecodeSavedSlice(AsBytes(value));
    const std::string key = slice ? SliceKey(slice->name, slice->extents) : "key";
    records[key] = value;
  }
  return BuildTable(records, 256);
}

void CheckValues(Input input) {
  const auto dtype = static_cast<DataType>(input.Byte());
  const uint64_t count = input.Byte();
  const std::string message(input.Rest());
  std::vector<std::string> strings;
  if (DecodeStringValues(AsBytes(message), count, &strings).kind == ValuesError::Kind::kNone) {
    Require(strings.size() == count);
  }
  const ValueField* field = FindValueField(dtype);
  if (field == nullptr || dtype == DataType::kString) return;
  std::vector<uint8_t> elements;
  if (DecodeValues(AsBytes(message), *field, count, &elements).kind == ValuesError::Kind::kNone) {
    Require(elements.size() == count * FindDataType(dtype)->item_size);
  }
}

void ReadSlice(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice) {
  try {
    checkpoint.records()->Verify(tensor, slice);
    const uint64_t count = Volume(checkpoint.catalog().BoxOf(tensor, slice));
    if (tensor.dtype == DataType::kString) {
      Require(checkpoint.records()->DecodeStrings(tensor, slice).size() == count);
    } else {
      const auto elements = checkpoint.records()->DecodeDense(tensor, slice);
      Require(elements.size() == count * FindDataType(tensor.dtype)->item_size);
    }
  } catch (const Error&) {
  }
}

void ReadAll(const Checkpoint& checkpoint) {
  for (const Tensor& tensor : checkpoint.catalog().tensors) {
    for (const StoredSlice& slice : checkpoint.catalog().Slices(tensor)) {
      ReadSlice(checkpoint, tensor, slice);
    }
    const DataTypeInfo* info = FindDataType(tensor.dtype);
    if (info == nullptr || info->item_size == 0 || tensor.num_elements > kMaxRead) continue;
    std::vector<uint8_t> out(tensor.num_elements * info->item_size);
    try {
      ReadBox(checkpoint, tensor, WholeBox(checkpoint.catalog().Shape(tensor)), out, {});
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  if (size == 0) return 0;
  fuzz::Input input(data, size);
  const uint8_t kind = input.Byte();
  if (kind % 4 == 2) {
    fuzz::CheckValues(input);
    return 0;
  }
  const std::string file =
      fuzz::IsFile(kind) ? fuzz::WithChecksums(std::string(input.Rest())) : fuzz::OfRecords(input);
  try {
    const auto checkpoint = OpenV1({"fuzz"}, IoMode::kPread, fuzz::OpensMemory(file));
    fuzz::CheckCatalog(checkpoint->catalog());
    fuzz::ReadAll(*checkpoint);
  } catch (const Error&) {
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return tensorbundle::fuzz::MutateInput(data, size, max_size, seed);
}
