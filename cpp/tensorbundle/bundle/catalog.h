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
#include "tensorbundle/bundle/extent.h"

namespace tensorbundle {

// How the bytes of a piece become elements.
enum class Encoding : uint8_t {
  kDense,     // row-major elements, one behind the other
  kStrings,   // lengths, their checksum, payloads
  kVariants,  // length, payload and checksum per element
  kRecord,    // a V1 record that must be decoded first: see bundle/record_store.h
};

// One stored slice of a tensor, or all of it.
struct Piece {
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
  uint64_t first_piece = 0;  // in Catalog::pieces
  uint64_t num_pieces = 0;
};

// Tensors in ascending order of their names, and the tables they point into. Everything in it is
// inside its bounds: shapes have a checked volume, pieces lie inside their tensor, sizes fit
// shapes. What is not checked is whether pieces overlap or leave holes, and whether the files are
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
  std::vector<Piece> pieces;
  std::vector<Extent> extents;
  std::vector<std::string> files;  // paths of the files that hold pieces
  // Where the last piece with bytes ends, per file; empty where that says nothing of the file.
  std::vector<uint64_t> file_ends;
  bool big_endian = false;
  std::vector<std::string> notes;  // odd, but harmless: for reports

  std::span<const int64_t> Shape(const Tensor& tensor) const {
    return std::span(dims).subspan(tensor.first_dim, tensor.rank);
  }
  std::span<const Piece> Pieces(const Tensor& tensor) const {
    return std::span(pieces).subspan(tensor.first_piece, tensor.num_pieces);
  }
  // Where a piece lies in its tensor.
  Box BoxOf(const Tensor& tensor, const Piece& piece) const;

  // The tensor's index, or kNotFound.
  size_t Find(std::string_view name) const;
};

}  // namespace tensorbundle
