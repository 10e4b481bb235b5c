// SPDX-License-Identifier: Apache-2.0
// The catalog of a checkpoint: its tensors, their stored slices, and the files that hold them. It
// is the same for both formats; the reader that fills it has checked it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensorbundle/base/arena.h"
#include "tensorbundle/bundle/data_type.h"
#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

// The encoding of the elements of a slice.
enum class Encoding : uint8_t {
  kDense,     // contiguous row-major elements
  kStrings,   // see bundle/string_codec.h
  kVariants,  // see bundle/string_codec.h
  kRecord,    // a V1 record that RecordStore decodes
};

// Returns the encoding of a type in a V2 checkpoint. Unknown types are kDense, like all types that
// TensorFlow has added so far.
inline Encoding EncodingOf(DataType dtype) {
  if (dtype == DataType::kString) return Encoding::kStrings;
  if (dtype == DataType::kVariant) return Encoding::kVariants;
  return Encoding::kDense;
}

// One stored slice of a tensor, or the whole tensor.
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
  std::string_view name;  // in Catalog::names
  DataType dtype = DataType::kInvalid;
  uint32_t rank = 0;
  uint64_t first_dim = 0;  // in Catalog::dims
  uint64_t num_elements = 0;
  uint64_t first_slice = 0;  // in Catalog::slices
  uint64_t num_slices = 0;
};

// Tensors in ascending order of their names, and the tables that they refer to. Checked: shapes
// have a volume below 2^63, slices are inside their tensor, and stored sizes fit the shapes. Not
// checked: whether slices overlap or leave gaps, and whether the files are long enough.
struct Catalog {
  static constexpr size_t kNotFound = SIZE_MAX;

  Catalog() = default;
  Catalog(Catalog&&) = default;
  Catalog& operator=(Catalog&&) = default;
  Catalog(const Catalog&) = delete;  // the names in a copy would point into the original
  Catalog& operator=(const Catalog&) = delete;

  ByteArena names;
  std::vector<Tensor> tensors;
  std::vector<int64_t> dims;
  std::vector<StoredSlice> slices;
  std::vector<Extent> extents;
  std::vector<std::string> files;  // paths of the files that hold slices
  // Per file: the end of the last slice that has bytes. Empty if the file has other contents too.
  std::vector<uint64_t> file_ends;
  bool big_endian = false;
  std::vector<std::string> warnings;  // unusual but valid findings, for reports

  std::span<const int64_t> Shape(const Tensor& tensor) const {
    return std::span(dims).subspan(tensor.first_dim, tensor.rank);
  }
  std::span<const StoredSlice> Slices(const Tensor& tensor) const {
    return std::span(slices).subspan(tensor.first_slice, tensor.num_slices);
  }
  // Returns the box of a slice in its tensor.
  Box BoxOf(const Tensor& tensor, const StoredSlice& slice) const;

  // Returns the file and the offset of the tensor's first stored bytes, for reading tensors in the
  // order of the files.
  std::pair<uint32_t, uint64_t> FilePosition(const Tensor& tensor) const {
    std::pair<uint32_t, uint64_t> first{UINT32_MAX, UINT64_MAX};
    for (const StoredSlice& slice : Slices(tensor)) {
      first = std::min(first, {slice.file, slice.offset});
    }
    return first;
  }

  // Returns the index of a tensor, or kNotFound.
  size_t Find(std::string_view name) const;
};

// Decodes and verifies slices that are protobuf messages in a table, and whose checksum covers more
// than the slice. The V1 format implements it.
// Throws: the members throw CorruptionError and IOFailure; decoding throws UnsupportedError for a
// type that it cannot decode. Threads: thread-safe.
class RecordStore {
 public:
  virtual ~RecordStore() = default;

  // Returns the elements of a kRecord slice, dense and row-major. Verifies the checksum that covers
  // them.
  virtual std::vector<uint8_t> DecodeDense(const Tensor& tensor,
                                           const StoredSlice& slice) const = 0;

  // Returns the elements of a kRecord slice of strings. Verifies as DecodeDense().
  virtual std::vector<std::string> DecodeStrings(const Tensor& tensor,
                                                 const StoredSlice& slice) const = 0;

  // Compares the checksum that covers a slice of any encoding, and checks that the slice agrees
  // with the catalog. Throws CorruptionError if not. One checksum may cover many slices: the result
  // of the last comparison is remembered.
  virtual void Verify(const Tensor& tensor, const StoredSlice& slice) const = 0;

  // Whether VerifyWith() can replace Verify(): the slice is dense, in a block so large that reading
  // it twice would take long.
  virtual bool NeedsChecksumOfBytes(const Tensor& tensor, const StoredSlice& slice) const = 0;

  // Verifies as Verify() does, but does not read the bytes of the slice again: `crc` is their
  // CRC32C. Requires: NeedsChecksumOfBytes().
  virtual void VerifyWith(const Tensor& tensor, const StoredSlice& slice, uint32_t crc) const = 0;

  // Throws CorruptionError if the store has no record of a kRecord slice. Reads the block in which
  // the record should be, and compares its checksum.
  virtual void RequireRecord(const Tensor& tensor, const StoredSlice& slice) const = 0;

  // Discards what Verify() remembers, so that the next call reads the file. Call it before the
  // verification of a checkpoint.
  virtual void Forget() const = 0;
};

}  // namespace tensorbundle
