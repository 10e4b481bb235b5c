// SPDX-License-Identifier: Apache-2.0
// An open V1 checkpoint: one table, or several shards of it, whose records are the tensors.
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

// Decodes and verifies records. Does not rely on offsets from open: looks up each record by its
// key, in a block whose checksum has been compared.
class V1Records final : public RecordStore {
 public:
  // `extents` are those of the catalog. Lifetime: their memory must outlive the object; a move of
  // the catalog does not change its address.
  V1Records(std::vector<V1Shard> shards, SliceEncodings encodings, std::span<const Extent> extents)
      : shards_(std::move(shards)), encodings_(std::move(encodings)), extents_(extents) {}

  std::vector<uint8_t> DecodeDense(const Tensor& tensor, const StoredSlice& slice) const override;
  std::vector<std::string> DecodeStrings(const Tensor& tensor,
                                         const StoredSlice& slice) const override;
  void Verify(const Tensor& tensor, const StoredSlice& slice) const override;
  bool NeedsChecksumOfBytes(const Tensor& tensor, const StoredSlice& slice) const override;
  void VerifyWith(const Tensor& tensor, const StoredSlice& slice, uint32_t crc) const override;
  void RequireRecord(const Tensor& tensor, const StoredSlice& slice) const override;
  void Forget() const override;

 private:
  struct Record {
    StoredRecord stored;
    SavedSlice slice;  // borrowed from `stored`
  };
  StoredRecord Find(const Tensor& tensor, const StoredSlice& slice) const;
  Record Read(const Tensor& tensor, const StoredSlice& slice) const;
  // Throws CorruptionError unless the kind of the error is kNone.
  void CheckValues(const ValuesError& error, const Tensor& tensor, const StoredSlice& slice) const;
  const BlockIndexEntry* LargeBlockOf(const Tensor& tensor, const StoredSlice& slice) const;
  void CompareDense(const Tensor& tensor, const StoredSlice& slice, const uint32_t* crc) const;
  std::optional<uint64_t> LocateVerified(const Tensor& tensor, const StoredSlice& slice,
                                         const uint32_t* crc) const;

  const ValueField& FieldOf(const Tensor& tensor, const StoredSlice& slice) const;
  uint64_t NumElements(const Tensor& tensor, const StoredSlice& slice) const;
  std::string Describe(const Tensor& tensor, const StoredSlice& slice) const;  // with the file

  std::vector<V1Shard> shards_;
  SliceEncodings encodings_;
  std::span<const Extent> extents_;
};

// Opens the files as one checkpoint. Reads no tensor data. Slices that are dense in their file are
// kDense in the catalog (float, double and complex values as TensorFlow writes them); the others
// are kRecord and must be decoded. No slice has a checksum of its own: RecordStore::Verify compares
// that of its block. Throws: CorruptionError if a table or its meta is corrupted, if the files
// contradict each other, or if one is the index of a V2 checkpoint; UnsupportedError for a newer
// format; std::invalid_argument if there are no files; CheckpointNotFoundError; IOFailure; what
// `opener` throws.
std::shared_ptr<const Checkpoint> OpenV1(const std::vector<std::string>& files, IoMode mode,
                                         const FileOpener& opener = nullptr);

}  // namespace tensorbundle
