// SPDX-License-Identifier: Apache-2.0
// What a checkpoint contains and where: the same for both formats, checked by whoever fills it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/base/arena.h"
#include "tensorbundle/bundle/data_type.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// How the bytes of a slice become elements.
enum class Encoding : uint8_t {
  kDense,     // row-major elements, one behind the other
  kStrings,   // lengths, their checksum, payloads
  kVariants,  // length, payload and checksum per element
  kRecord,    // a V1 record that must be decoded first: see bundle/catalog.h
};

// One stored slice of a tensor, or all of it.
struct StoredSlice {
  static constexpr uint64_t kWholeTensor = UINT64_MAX;

  uint64_t offset = 0;  // of the stored bytes in their file
  uint64_t size = 0;
  uint64_t first_extent = kWholeTensor;  // in Catalog::extents
  uint32_t file = 0;                     // in Catalog::files
  uint32_t masked_checksum = 0;
  bool has_checksum = false;
  Encoding encoding = Encoding::kDense;
};

struct Tensor {
  std::string_view name;  // lies in Catalog::names
  DataType dtype = DataType::kInvalid;
  uint32_t rank = 0;
  uint64_t first_dim = 0;  // in Catalog::dims
  uint64_t num_elements = 0;
  uint64_t first_slice = 0;  // in Catalog::slices
  uint64_t num_slices = 0;
};

// Tensors in ascending order of their names, and the tables they point into. Everything in it is
// inside its bounds: shapes have a checked volume, slices lie inside their tensor, sizes fit
// shapes. What is not checked is whether slices overlap or leave holes, and whether the files are
// long enough.
struct Catalog {
  static constexpr size_t kNotFound = SIZE_MAX;

  Catalog() = default;
  Catalog(Catalog&&) = default;
  Catalog& operator=(Catalog&&) = default;
  Catalog(const Catalog&) = delete;  // the names of a copy's tensors would lie in the original
  Catalog& operator=(const Catalog&) = delete;

  ByteArena names;
  std::vector<Tensor> tensors;
  std::vector<int64_t> dims;
  std::vector<StoredSlice> slices;
  std::vector<Extent> extents;
  std::vector<std::string> files;  // paths of the files that hold slices
  // Where the last slice with bytes ends, per file; empty where that says nothing of the file.
  std::vector<uint64_t> file_ends;
  bool big_endian = false;
  std::vector<std::string> warnings;  // odd, but harmless: for reports

  std::span<const int64_t> Shape(const Tensor& tensor) const {
    return std::span(dims).subspan(tensor.first_dim, tensor.rank);
  }
  std::span<const StoredSlice> Slices(const Tensor& tensor) const {
    return std::span(slices).subspan(tensor.first_slice, tensor.num_slices);
  }
  // Where a slice lies in its tensor.
  Box BoxOf(const Tensor& tensor, const StoredSlice& slice) const;

  // The tensor's index, or kNotFound.
  size_t Find(std::string_view name) const;
};

// Slices whose bytes must be decoded before they are elements, or whose checksum covers more than
// the slice.

// Implemented by the V1 format, whose tensors lie as protobuf messages inside a table. Thread-safe.
class RecordStore {
 public:
  virtual ~RecordStore() = default;

  // The elements of a kRecord slice, dense and row-major. Verifies the checksum that covers them.
  // Throws CorruptionError, IOFailure.
  virtual std::vector<uint8_t> DecodeDense(const Tensor& tensor,
                                           const StoredSlice& slice) const = 0;

  // The elements of a kRecord slice of strings.
  virtual std::vector<std::string> DecodeStrings(const Tensor& tensor,
                                                 const StoredSlice& slice) const = 0;

  // Compares the checksum that covers any slice of this store, and checks that the slice is what
  // the catalog says. Throws CorruptionError when it is not. A checksum may cover many slices and
  // be compared once for all of them: what was compared last is remembered.
  virtual void Verify(const Tensor& tensor, const StoredSlice& slice) const = 0;

  // Throws CorruptionError when the store has no record of a kRecord slice. Reads the block that
  // the record should be in, and compares its checksum.
  virtual void RequireRecord(const Tensor& tensor, const StoredSlice& slice) const = 0;

  // Drops what Verify remembers: the next one looks at the file. For whoever starts to verify a
  // checkpoint.
  virtual void Forget() const = 0;
};

}  // namespace tensorbundle
