// SPDX-License-Identifier: Apache-2.0
// A writer of V2 checkpoints for tests, record by record, so that any record can be invalid.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "table_builder.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/data_type.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/read/copy_layout.h"

namespace tensorbundle::testing {

inline std::string Fixed32Field(uint32_t number, uint32_t value) {
  std::string field;
  AppendVarint(number << 3 | 5, &field);
  AppendFixed32(value, &field);
  return field;
}

// TensorShapeProto.
inline std::string ShapeMessage(std::span<const int64_t> dims) {
  std::string message;
  for (const int64_t dim : dims) {
    message += BytesField(2, dim == 0 ? "" : VarintField(1, static_cast<uint64_t>(dim)));
  }
  return message;
}

// TensorSliceProto. A whole axis is {0, kFullLength}.
inline std::string SliceMessage(std::span<const Extent> encoded) {
  std::string message;
  for (const Extent& extent : encoded) {
    std::string inner;
    if (extent.start != 0) inner += VarintField(1, static_cast<uint64_t>(extent.start));
    if (extent.length != kFullLength) inner += VarintField(2, static_cast<uint64_t>(extent.length));
    message += BytesField(1, inner);
  }
  return message;
}

inline std::string RandomBytes(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

// The bytes of elements in the other byte order.
inline std::string Swapped(std::string elements, unsigned unit) {
  SwapBytes({reinterpret_cast<uint8_t*>(elements.data()), elements.size()}, unit);
  return elements;
}

// The fields of a BundleEntryProto.
struct Record {
  DataType dtype = DataType::kFloat;
  std::vector<int64_t> dims{};
  int32_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint32_t crc = 0;  // unmasked
  std::vector<Box> slices{};

  std::string Message() const {
    std::string message = VarintField(1, static_cast<uint64_t>(dtype));
    message += BytesField(2, ShapeMessage(dims));
    if (shard != 0) message += VarintField(3, static_cast<uint64_t>(shard));
    if (offset != 0) message += VarintField(4, offset);
    if (size != 0) message += VarintField(5, size);
    if (slices.empty()) message += Fixed32Field(6, crc32c::Mask(crc));
    for (const Box& slice : slices) message += BytesField(7, SliceMessage(slice));
    return message;
  }
};

// The bytes of a box of a row-major array.
inline std::string CutOut(std::string_view whole, std::span<const int64_t> dims, const Box& box,
                          size_t item_size) {
  std::string part;
  std::vector<int64_t> at;
  for (const Extent& extent : box) at.push_back(extent.start);
  for (uint64_t left = Volume(box); left > 0; --left) {
    uint64_t index = 0;
    for (size_t axis = 0; axis < dims.size(); ++axis) {
      index = index * static_cast<uint64_t>(dims[axis]) + static_cast<uint64_t>(at[axis]);
    }
    part.append(whole.substr(index * item_size, item_size));
    for (size_t axis = dims.size(); axis-- > 0;) {
      if (++at[axis] < box[axis].end()) break;
      at[axis] = box[axis].start;
    }
  }
  return part;
}

class BundleBuilder {
 public:
  explicit BundleBuilder(int32_t num_shards = 1, bool big_endian = false)
      : data_(static_cast<size_t>(num_shards)) {
    std::string header = VarintField(1, static_cast<uint64_t>(num_shards));
    if (big_endian) header += VarintField(2, 1);
    records_[""] = header + BytesField(3, VarintField(1, 1));
  }

  // Adds or replaces a record of the index.
  BundleBuilder& Put(const std::string& key, const std::string& value) {
    records_[key] = value;
    return *this;
  }

  BundleBuilder& Remove(const std::string& key) {
    records_.erase(key);
    return *this;
  }

  // Appends bytes to a shard and returns their location.
  Record Store(DataType dtype, std::vector<int64_t> dims, std::string_view bytes,
               int32_t shard = 0) {
    std::string& data = data_[static_cast<size_t>(shard)];
    Record record{dtype,       std::move(dims), shard,
                  data.size(), bytes.size(),    crc32c::Value(bytes.data(), bytes.size())};
    data.append(bytes);
    return record;
  }

  BundleBuilder& Add(const std::string& name, DataType dtype, std::vector<int64_t> dims,
                     std::string_view bytes, int32_t shard = 0) {
    return Put(name, Store(dtype, std::move(dims), bytes, shard).Message());
  }

  // Adds a tensor in slices, one after another, shard by shard in turn.
  BundleBuilder& AddSliced(const std::string& name, DataType dtype, std::vector<int64_t> dims,
                           std::string_view bytes, const std::vector<Box>& slices) {
    const size_t item_size = FindDataType(dtype)->item_size;
    int32_t shard = 0;
    for (const Box& slice : slices) {
      std::vector<int64_t> slice_dims;
      for (const Extent& extent : slice) slice_dims.push_back(extent.length);
      Put(SliceKey(name, slice),
          Store(dtype, slice_dims, CutOut(bytes, dims, slice, item_size), shard).Message());
      shard = (shard + 1) % static_cast<int32_t>(data_.size());
    }
    return Put(name, Record{.dtype = dtype, .dims = std::move(dims), .slices = slices}.Message());
  }

  std::string& data(int32_t shard = 0) { return data_[static_cast<size_t>(shard)]; }

  std::string Index(size_t block_size = 1 << 18) const {
    TableBuilder table(block_size);
    for (const auto& [key, value] : records_) table.Add(key, value);
    return table.Finish();
  }

  void Write(const std::string& prefix) const {
    const auto num_shards = static_cast<int32_t>(data_.size());
    for (int32_t shard = 0; shard < num_shards; ++shard) {
      std::ofstream(DataFilePath(prefix, shard, num_shards), std::ios::binary)
          << data_[static_cast<size_t>(shard)];
    }
    std::ofstream(prefix + ".index", std::ios::binary) << Index();  // last, as writers do
  }

 private:
  std::map<std::string, std::string> records_;  // std::string compares bytes as unsigned
  std::vector<std::string> data_;
};

// Returns a tensor. Throws: std::out_of_range if the checkpoint does not have it.
inline const Tensor& Find(const Checkpoint& checkpoint, const std::string& name) {
  const size_t found = checkpoint.catalog().Find(name);
  if (found == Catalog::kNotFound) throw std::out_of_range(name);
  return checkpoint.catalog().tensors[found];
}

}  // namespace tensorbundle::testing
