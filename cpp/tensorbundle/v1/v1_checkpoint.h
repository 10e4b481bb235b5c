// SPDX-License-Identifier: Apache-2.0
// The tensors of a V1 checkpoint, read out of its tables.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/shard.h"
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

  std::vector<uint8_t> DecodeDense(const Tensor& tensor, const StoredSlice& slice) const override;
  std::vector<std::string> DecodeStrings(const Tensor& tensor,
                                         const StoredSlice& slice) const override;
  void Verify(const Tensor& tensor, const StoredSlice& slice) const override;
  void RequireRecord(const Tensor& tensor, const StoredSlice& slice) const override;
  void Forget() const override;

 private:
  struct Record {
    StoredRecord stored;
    SavedSlice slice;  // borrowed from it
  };
  StoredRecord Find(const Tensor& tensor, const StoredSlice& slice) const;
  Record Read(const Tensor& tensor, const StoredSlice& slice) const;
  void VerifyDense(const Tensor& tensor, const StoredSlice& slice) const;
  std::optional<uint64_t> LocateVerified(const Tensor& tensor, const StoredSlice& slice) const;

  const ValueField& FieldOf(const Tensor& tensor, const StoredSlice& slice) const;
  uint64_t NumElements(const Tensor& tensor, const StoredSlice& slice) const;
  std::string Describe(const Tensor& tensor, const StoredSlice& slice) const;  // with the file

  std::vector<V1Shard> shards_;
  SliceNames names_;
  std::span<const Extent> extents_;
};

// Opening a V1 checkpoint: one table, or several shards of it, that hold the tensors themselves.

// Opens the files as one checkpoint. Reads no tensor data: the catalog says which slices are dense
// in their file (float, double and complex values as TensorFlow writes them) and which must be
// decoded. No slice has a checksum of its own: RecordStore::Verify compares that of the block it
// lies in. Throws CorruptionError when a table or its meta is damaged, when the files contradict
// each other or when one is the index of a V2 checkpoint; UnsupportedError for a newer format;
// std::invalid_argument without files; what File::Open throws.
std::shared_ptr<const Checkpoint> OpenV1(const std::vector<std::string>& files, IoMode mode);

}  // namespace tensorbundle
