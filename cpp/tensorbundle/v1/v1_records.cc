// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/v1_records.h"

#include <optional>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/quoted.h"
#include "tensorbundle/bundle/ordered_code.h"
#include "tensorbundle/v1/dense_records.h"

namespace tensorbundle {

std::vector<uint8_t> V1Records::DecodeDense(const Tensor& tensor, const Piece& piece) const {
  const ValueField& field = FieldOf(tensor, piece);
  if (HasVariableSize(tensor.dtype)) {
    throw UnsupportedError(Describe(tensor, piece) +
                           " holds strings, which have no dense elements");
  }
  const Record record = Read(tensor, piece);
  std::vector<uint8_t> elements;
  const auto fault =
      DecodeValues(record.slice.values, field, NumElements(tensor, piece), &elements);
  if (fault) throw CorruptionError(Describe(tensor, piece) + ": the record " + *fault);
  return elements;
}

std::vector<std::string> V1Records::DecodeStrings(const Tensor& tensor, const Piece& piece) const {
  if (tensor.dtype != DataType::kString) {
    throw UnsupportedError(Describe(tensor, piece) + " holds " + DataTypeName(tensor.dtype) +
                           ", no strings");
  }
  const Record record = Read(tensor, piece);
  std::vector<std::string> elements;
  const auto fault = DecodeStringValues(record.slice.values, NumElements(tensor, piece), &elements);
  if (fault) throw CorruptionError(Describe(tensor, piece) + ": the record " + *fault);
  return elements;
}

void V1Records::Verify(const Tensor& tensor, const Piece& piece) const {
  if (piece.encoding == Encoding::kDense) {
    VerifyDense(tensor, piece);
  } else if (tensor.dtype == DataType::kString) {
    DecodeStrings(tensor, piece);
  } else {
    DecodeDense(tensor, piece);
  }
}

void V1Records::RequireRecord(const Tensor& tensor, const Piece& piece) const {
  if (piece.encoding == Encoding::kRecord) Find(tensor, piece);
}

void V1Records::Forget() const {
  for (const V1Shard& shard : shards_) shard.Forget();
}

void V1Records::VerifyDense(const Tensor& tensor, const Piece& piece) const {
  const std::optional<uint64_t> payload = LocateVerified(tensor, piece);
  if (payload == piece.offset) return;
  throw CorruptionError(Describe(tensor, piece) + ": its elements, found at offset " +
                        std::to_string(piece.offset) + " at open, are " +
                        (payload ? "at " + std::to_string(*payload) : "nowhere") +
                        " now; was the file overwritten?");
}

// Where the checksum of the block says that the elements are. Finding them at open went without it.
std::optional<uint64_t> V1Records::LocateVerified(const Tensor& tensor, const Piece& piece) const {
  const V1Shard& shard = shards_[piece.file];
  const Box spelled = names_.Spelled(extents_, tensor, piece);
  const BlockIndexEntry* block = shard.table().FindBlock(SliceKey(tensor.name, spelled));
  if (block == nullptr || V1Shard::IsSmall(block->handle)) {
    return LocateDenseRecord(Find(tensor, piece), tensor, spelled, piece);
  }
  try {
    shard.VerifyBlock(block->handle);  // keeps nothing of the block, which may have gigabytes
  } catch (const CorruptionError& error) {
    throw CorruptionError(std::string(error.what()) + "; it holds " + Describe(tensor, piece));
  }
  return LocateDenseRecord(shard, tensor, spelled, piece);
}

StoredRecord V1Records::Find(const Tensor& tensor, const Piece& piece) const {
  std::optional<StoredRecord> stored;
  try {
    stored = shards_[piece.file].ReadRecord(names_.Key(extents_, tensor, piece));
  } catch (const CorruptionError& error) {
    throw CorruptionError(std::string(error.what()) + "; it holds " + Describe(tensor, piece));
  }
  if (stored) return std::move(*stored);
  throw CorruptionError(Describe(tensor, piece) +
                        ": the meta lists it, but the table has no record of it");
}

V1Records::Record V1Records::Read(const Tensor& tensor, const Piece& piece) const {
  StoredRecord stored = Find(tensor, piece);
  std::optional<SavedSlice> slice = DecodeSavedSlice(stored.value);
  if (!slice) throw CorruptionError(Describe(tensor, piece) + ": the record is malformed");
  if (slice->name != tensor.name || slice->extents != names_.Spelled(extents_, tensor, piece)) {
    throw CorruptionError(Describe(tensor, piece) +
                          ": the record under its key is of another slice, of tensor " +
                          Quoted(slice->name));
  }
  return {std::move(stored), std::move(*slice)};
}

const ValueField& V1Records::FieldOf(const Tensor& tensor, const Piece& piece) const {
  const ValueField* field = FindValueField(tensor.dtype);
  if (field == nullptr) {
    throw UnsupportedError(Describe(tensor, piece) + ": V1 checkpoints do not hold " +
                           DataTypeName(tensor.dtype));
  }
  return *field;
}

uint64_t V1Records::NumElements(const Tensor& tensor, const Piece& piece) const {
  if (piece.first_extent == Piece::kWholeTensor) return tensor.num_elements;
  return Volume(extents_.subspan(piece.first_extent, tensor.rank));
}

std::string V1Records::Describe(const Tensor& tensor, const Piece& piece) const {
  std::string text = shards_[piece.file].path() + ": tensor " + Quoted(tensor.name);
  if (piece.first_extent != Piece::kWholeTensor) {
    text += ", slice " + ToString(extents_.subspan(piece.first_extent, tensor.rank));
  }
  return text;
}

}  // namespace tensorbundle
