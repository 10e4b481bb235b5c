// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/v1_checkpoint.h"

#include <optional>
#include <stdexcept>
#include <utility>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/v1/catalog.h"
#include "tensorbundle/v1/dense_records.h"
#include "tensorbundle/v1/shard.h"

namespace tensorbundle {
namespace {

// The words for an error among the values of a record.
std::string DescribeValues(const ValuesError& error, DataType dtype, uint64_t num_elements) {
  switch (error.kind) {
    case ValuesError::Kind::kMalformed:
      return "is a malformed TensorProto";
    case ValuesError::Kind::kTooFew:
      return "has fewer values than the slice has elements, " + std::to_string(num_elements);
    case ValuesError::Kind::kTooMany:
      return "has more values than the slice has elements";
    case ValuesError::Kind::kOtherField:
      return "has elements in field " + std::to_string(error.field) +
             " of its TensorProto, where no " + DataTypeName(dtype) + " belongs";
    case ValuesError::Kind::kWireType:
      return "has values of a wrong wire type";
    case ValuesError::Kind::kMalformedValue:
      return "has a malformed value";
    case ValuesError::Kind::kTornValue:
      return "has a torn value";
    case ValuesError::Kind::kRange:
      return "has the value " + std::to_string(error.value) + ", which is no " +
             DataTypeName(dtype);
    case ValuesError::Kind::kNone:
      break;
  }
  return "is valid";
}

// Throws if `file` is not the file that was read before.
void CheckSameFile(const FileIdentity& expected, const File& file) {
  if (file.identity() == expected) return;
  throw CorruptionError(file.path() + " was replaced while it was being opened; open it again");
}

}  // namespace

std::vector<uint8_t> V1Records::DecodeDense(const Tensor& tensor, const StoredSlice& slice) const {
  const ValueField& field = FieldOf(tensor, slice);
  if (HasVariableSize(tensor.dtype)) {
    throw UnsupportedError(Describe(tensor, slice) +
                           " holds strings, which have no dense elements");
  }
  const Record record = Read(tensor, slice);
  std::vector<uint8_t> elements;
  CheckValues(DecodeValues(record.slice.values, field, NumElements(tensor, slice), &elements),
              tensor, slice);
  return elements;
}

std::vector<std::string> V1Records::DecodeStrings(const Tensor& tensor,
                                                  const StoredSlice& slice) const {
  if (tensor.dtype != DataType::kString) {
    throw UnsupportedError(Describe(tensor, slice) + " holds " + DataTypeName(tensor.dtype) +
                           ", no strings");
  }
  const Record record = Read(tensor, slice);
  std::vector<std::string> elements;
  CheckValues(DecodeStringValues(record.slice.values, NumElements(tensor, slice), &elements),
              tensor, slice);
  return elements;
}

void V1Records::CheckValues(const ValuesError& error, const Tensor& tensor,
                            const StoredSlice& slice) const {
  if (error.kind == ValuesError::Kind::kNone) return;
  throw CorruptionError(Describe(tensor, slice) + ": the record " +
                        DescribeValues(error, tensor.dtype, NumElements(tensor, slice)));
}

void V1Records::Verify(const Tensor& tensor, const StoredSlice& slice) const {
  if (slice.encoding == Encoding::kDense) {
    CompareDense(tensor, slice, nullptr);
  } else if (tensor.dtype == DataType::kString) {
    DecodeStrings(tensor, slice);
  } else {
    DecodeDense(tensor, slice);
  }
}

void V1Records::RequireRecord(const Tensor& tensor, const StoredSlice& slice) const {
  if (slice.encoding == Encoding::kRecord) Find(tensor, slice);
}

void V1Records::Forget() const {
  for (const V1Shard& shard : shards_) shard.Forget();
}

bool V1Records::NeedsChecksumOfBytes(const Tensor& tensor, const StoredSlice& slice) const {
  if (slice.encoding != Encoding::kDense) return false;
  const BlockIndexEntry* block = LargeBlockOf(tensor, slice);
  // The offset of the slice was found at open. It is not trusted.
  return block != nullptr && slice.offset >= block->handle.offset &&
         RangeFits(slice.offset - block->handle.offset, slice.size, block->handle.size);
}

void V1Records::VerifyWith(const Tensor& tensor, const StoredSlice& slice, uint32_t crc) const {
  CompareDense(tensor, slice, &crc);
}

// Returns null if the block that holds the slice is missing, or so small that it is cached.
const BlockIndexEntry* V1Records::LargeBlockOf(const Tensor& tensor,
                                               const StoredSlice& slice) const {
  const BlockIndexEntry* block =
      shards_[slice.file].table().FindBlock(encodings_.Key(extents_, tensor, slice));
  return block == nullptr || V1Shard::IsSmall(block->handle) ? nullptr : block;
}

// `crc`: of the bytes of the slice, or null if they must be read.
void V1Records::CompareDense(const Tensor& tensor, const StoredSlice& slice,
                             const uint32_t* crc) const {
  const std::optional<uint64_t> payload = LocateVerified(tensor, slice, crc);
  if (payload == slice.offset) return;
  throw CorruptionError(Describe(tensor, slice) + ": its elements, found at offset " +
                        std::to_string(slice.offset) + " at open, are " +
                        (payload ? "at " + std::to_string(*payload) : "nowhere") +
                        " now; was the file overwritten?");
}

// Returns the offset of the elements in a block whose checksum is compared first. The offset that
// was found at open has not been verified.
std::optional<uint64_t> V1Records::LocateVerified(const Tensor& tensor, const StoredSlice& slice,
                                                  const uint32_t* crc) const {
  const V1Shard& shard = shards_[slice.file];
  const std::vector<Extent> encoded = encodings_.Encode(extents_, tensor, slice);
  const BlockIndexEntry* block = LargeBlockOf(tensor, slice);
  if (block == nullptr) {
    return LocateDenseRecord(Find(tensor, slice), tensor, encoded, slice);
  }
  ReadBytes known{block->handle.offset, 0, 0};
  if (crc != nullptr) known = {slice.offset, slice.size, *crc};
  try {
    // Keeps no part of the block, which may have gigabytes.
    shard.VerifyBlock(block->handle, known);
  } catch (const CorruptionError& error) {
    throw CorruptionError(std::string(error.what()) + "; it holds " + Describe(tensor, slice));
  }
  return LocateDenseRecord(shard, tensor, encoded, slice);
}

StoredRecord V1Records::Find(const Tensor& tensor, const StoredSlice& slice) const {
  std::optional<StoredRecord> stored;
  try {
    stored = shards_[slice.file].ReadRecord(encodings_.Key(extents_, tensor, slice));
  } catch (const CorruptionError& error) {
    throw CorruptionError(std::string(error.what()) + "; it holds " + Describe(tensor, slice));
  }
  if (stored) return std::move(*stored);
  throw CorruptionError(Describe(tensor, slice) +
                        ": the meta lists it, but the table has no record of it");
}

V1Records::Record V1Records::Read(const Tensor& tensor, const StoredSlice& slice) const {
  StoredRecord stored = Find(tensor, slice);
  std::optional<SavedSlice> saved = DecodeSavedSlice(stored.value);
  if (!saved) throw CorruptionError(Describe(tensor, slice) + ": the record is malformed");
  if (saved->name != tensor.name || saved->extents != encodings_.Encode(extents_, tensor, slice)) {
    throw CorruptionError(Describe(tensor, slice) +
                          ": the record under its key is of another slice, of tensor " +
                          EscapeBytes(saved->name));
  }
  return {std::move(stored), std::move(*saved)};
}

const ValueField& V1Records::FieldOf(const Tensor& tensor, const StoredSlice& slice) const {
  const ValueField* field = FindValueField(tensor.dtype);
  if (field == nullptr) {
    throw UnsupportedError(Describe(tensor, slice) + ": V1 checkpoints do not hold " +
                           DataTypeName(tensor.dtype));
  }
  return *field;
}

uint64_t V1Records::NumElements(const Tensor& tensor, const StoredSlice& slice) const {
  if (slice.first_extent == StoredSlice::kWholeTensor) return tensor.num_elements;
  return Volume(extents_.subspan(slice.first_extent, tensor.rank));
}

std::string V1Records::Describe(const Tensor& tensor, const StoredSlice& slice) const {
  std::string text = shards_[slice.file].path() + ": tensor " + EscapeBytes(tensor.name);
  if (slice.first_extent != StoredSlice::kWholeTensor) {
    text += ", slice " + ToString(extents_.subspan(slice.first_extent, tensor.rank));
  }
  return text;
}

std::shared_ptr<const Checkpoint> OpenV1(const std::vector<std::string>& files, IoMode mode,
                                         const FileOpener& opener) {
  if (files.empty()) throw std::invalid_argument("a V1 checkpoint has at least one file");
  std::vector<V1Shard> shards;
  std::vector<FileIdentity> identities;
  uint32_t checksum = 0;
  for (const std::string& path : files) {
    shards.push_back(V1Shard::Open(path, opener));
    identities.push_back(shards.back().file().identity());
    checksum = shards.back().ExtendWithChecksums(checksum);
  }
  V1Catalog merged = ReadV1Catalog(shards);
  LocateDenseRecords(shards, merged.encodings, &merged.catalog);
  auto records = std::make_unique<const V1Records>(std::move(shards), std::move(merged.encodings),
                                                   merged.catalog.extents);
  auto checkpoint = std::make_shared<const Checkpoint>(std::move(merged.catalog), checksum, mode,
                                                       std::move(records), opener);
  for (uint32_t file = 0; file < files.size(); ++file) {
    CheckSameFile(identities[file], checkpoint->files().Get(file));
  }
  return checkpoint;
}

}  // namespace tensorbundle
