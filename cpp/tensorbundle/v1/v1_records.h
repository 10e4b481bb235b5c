// SPDX-License-Identifier: Apache-2.0
// The tensors of a V1 checkpoint, read out of its tables.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/bundle/record_store.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/shard.h"
#include "tensorbundle/v1/slice_names.h"
#include "tensorbundle/v1/values.h"

namespace tensorbundle {

// Trusts nothing that was seen at open: a record is looked up by its key, in a block whose checksum
// has been compared since.
class V1Records final : public RecordStore {
 public:
  // `extents` are the catalog's, whose memory must outlive this and stays where it is when the
  // catalog moves.
  V1Records(std::vector<V1Shard> shards, SliceNames names, std::span<const Extent> extents)
      : shards_(std::move(shards)), names_(std::move(names)), extents_(extents) {}

  std::vector<uint8_t> DecodeDense(const Tensor& tensor, const Piece& piece) const override;
  std::vector<std::string> DecodeStrings(const Tensor& tensor, const Piece& piece) const override;
  void Verify(const Tensor& tensor, const Piece& piece) const override;
  void RequireRecord(const Tensor& tensor, const Piece& piece) const override;
  void Forget() const override;

 private:
  struct Record {
    StoredRecord stored;
    SavedSlice slice;  // borrowed from it
  };
  StoredRecord Find(const Tensor& tensor, const Piece& piece) const;
  Record Read(const Tensor& tensor, const Piece& piece) const;
  void VerifyDense(const Tensor& tensor, const Piece& piece) const;
  std::optional<uint64_t> LocateVerified(const Tensor& tensor, const Piece& piece) const;

  const ValueField& FieldOf(const Tensor& tensor, const Piece& piece) const;
  uint64_t NumElements(const Tensor& tensor, const Piece& piece) const;
  std::string Describe(const Tensor& tensor, const Piece& piece) const;  // with the file

  std::vector<V1Shard> shards_;
  SliceNames names_;
  std::span<const Extent> extents_;
};

}  // namespace tensorbundle
