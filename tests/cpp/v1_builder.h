// SPDX-License-Identifier: Apache-2.0
// Builds the files of V1 checkpoints record by record, so that any record can be invalid.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "table_builder.h"
#include "tensorbundle/bundle/data_type.h"
#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle::testing {

inline constexpr Extent kAll = {0, kFullLength};

inline std::string ListingProto(const std::string& name, DataType dtype,
                                const std::vector<int64_t>& dims, const std::vector<Box>& slices) {
  std::string message = BytesField(1, name) + BytesField(2, ShapeMessage(dims)) +
                        VarintField(3, static_cast<uint64_t>(dtype));
  for (const Box& slice : slices) message += BytesField(4, SliceMessage(slice));
  return BytesField(1, message);
}

inline std::string RecordProto(const std::string& name, const Box& slice,
                               const std::string& values) {
  return BytesField(
      2, BytesField(1, name) + BytesField(2, SliceMessage(slice)) + BytesField(3, values));
}

template <typename T>
inline std::string Raw(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

inline std::string Floats(const std::vector<float>& values) { return BytesField(5, Raw(values)); }

inline std::string Varints(uint32_t field, const std::vector<int64_t>& values) {
  std::string packed;
  for (const int64_t value : values) AppendVarint(static_cast<uint64_t>(value), &packed);
  return BytesField(field, packed);
}

// Builds one file of a V1 checkpoint.
class V1Writer {
 public:
  void List(const std::string& name, DataType dtype, const std::vector<int64_t>& dims,
            const std::vector<Box>& slices) {
    meta += ListingProto(name, dtype, dims, slices);
  }
  void Store(const std::string& name, const Box& slice, const std::string& values) {
    records[SliceKey(name, slice)] = RecordProto(name, slice, values);
  }
  void Add(const std::string& name, DataType dtype, const std::vector<int64_t>& dims,
           const std::string& values) {
    const Box whole(dims.size(), kAll);
    List(name, dtype, dims, {whole});
    Store(name, whole, values);
  }

  // Records the locations of the blocks.
  std::string Finish(size_t block_size = 1 << 18, bool snappy = false) {
    TableBuilder table(block_size);
    if (snappy) table.UseSnappy();
    table.Add("", BytesField(1, meta + BytesField(2, VarintField(1, 1))));
    for (const auto& [key, value] : records) table.Add(key, value);
    std::string file = table.Finish();
    places = table.places();
    return file;
  }

  std::string meta;
  std::map<std::string, std::string> records;
  std::vector<BlockPlace> places;
};

}  // namespace tensorbundle::testing
