// SPDX-License-Identifier: Apache-2.0
// Where each stored piece of a checkpoint lies, and where it goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/header.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {

// Pieces of at least this many bytes go to multiples of the alignment that was asked for, all
// others to multiples of kSmallAlignment.
inline constexpr uint64_t kLargePiece = 1'000'000;
inline constexpr uint64_t kSmallAlignment = 64;
inline constexpr uint64_t kMaxAlignment = uint64_t{1} << 30;

// A stored piece: a record of the index that has bytes of its own.
struct PlacedPiece {
  size_t record = 0;  // which of the index
  int32_t shard = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t num_elements = 0;
  uint32_t masked_checksum = 0;
  bool has_checksum = false;
  Encoding encoding = Encoding::kDense;
  uint64_t new_offset = 0;  // in the same shard

  // Whether the two are the same bytes, to be checked in the same way.
  bool IsSameAs(const PlacedPiece& other) const;
};

// Every piece, by shard and by where it lies. In each shard the pieces keep their order; those that
// are the same bytes stay so. `entries` are those of an index that ReadBundleIndex accepts; slice
// records that no tensor lists are checked here. Throws CorruptionError, naming `path`, when a
// record is impossible or the shards would outgrow what a file can have.
std::vector<PlacedPiece> PlacePieces(const TableEntries& entries, const BundleHeader& header,
                                     uint64_t alignment, const std::string& path);

}  // namespace tensorbundle
