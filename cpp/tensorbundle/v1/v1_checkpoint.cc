// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/v1_checkpoint.h"

#include <optional>
#include <stdexcept>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/v1/catalog.h"
#include "tensorbundle/v1/dense_records.h"
#include "tensorbundle/v1/shard.h"

namespace tensorbundle {

std::vector<uint8_t> V1Records::DecodeDense(const Tensor& tensor, const StoredSlice& slice) const {
  const ValueField& field = FieldOf(tensor, slice);
  if (HasVariableSize(tensor.dtype)) {
    throw UnsupportedError(Describe(tensor, slice) +
                           " holds strings, which have no dense elements");
  }
  const Record record = Read(tensor, slice);
  std::vector<uint8_t> elements;
  const auto fault =
      DecodeValues(record.slice.values, field, NumElements(tensor, slice), &elements);
  if (fault) throw CorruptionError(Describe(tensor, slice) + ": the record " + *fault);
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
  const auto fault = DecodeStringValues(record.slice.values, NumElements(tensor, slice), &elements);
  if (fault) throw CorruptionError(Describe(tensor, slice) + ": the record " + *fault);
  return elements;
}

void V1Records::Verify(const Tensor& tensor, const StoredSlice& slice) const {
  if (slice.encoding == Encoding::kDense) {
    VerifyDense(tensor, slice);
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

void V1Records::VerifyDense(const Tensor& tensor, const StoredSlice& slice) const {
  const std::optional<uint64_t> payload = LocateVerified(tensor, slice);
  if (payload == slice.offset) return;
  throw CorruptionError(Describe(tensor, slice) + ": its elements, found at offset " +
                        std::to_string(slice.offset) + " at open, are " +
                        (payload ? "at " + std::to_string(*payload) : "nowhere") +
                        " now; was the file overwritten?");
}

// Where the checksum of the block says that the elements are. Finding them at open went without it.
std::optional<uint64_t> V1Records::LocateVerified(const Tensor& tensor,
                                                  const StoredSlice& slice) const {
  const V1Shard& shard = shards_[slice.file];
  const Box spelled = names_.Spelled(extents_, tensor, slice);
  const BlockIndexEntry* block = shard.table().FindBlock(SliceKey(tensor.name, spelled));
  if (block == nullptr || V1Shard::IsSmall(block->handle)) {
    return LocateDenseRecord(Find(tensor, slice), tensor, spelled, slice);
  }
  try {
    shard.VerifyBlock(block->handle);  // keeps nothing of the block, which may have gigabytes
  } catch (const CorruptionError& error) {
    throw CorruptionError(std::string(error.what()) + "; it holds " + Describe(tensor, slice));
  }
  return LocateDenseRecord(shard, tensor, spelled, slice);
}

StoredRecord V1Records::Find(const Tensor& tensor, const StoredSlice& slice) const {
  std::optional<StoredRecord> stored;
  try {
    stored = shards_[slice.file].ReadRecord(names_.Key(extents_, tensor, slice));
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
  if (saved->name != tensor.name || saved->extents != names_.Spelled(extents_, tensor, slice)) {
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

namespace {

// What was found out through one descriptor is used through another.
void CheckSameFile(const FileIdentity& seen, const File& file) {
  if (file.identity() == seen) return;
  throw CorruptionError(file.path() + " was replaced while it was being opened; open it again");
}

}  // namespace

std::shared_ptr<const Checkpoint> OpenV1(const std::vector<std::string>& files, IoMode mode) {
  if (files.empty()) throw std::invalid_argument("a V1 checkpoint has at least one file");
  std::vector<V1Shard> shards;
  std::vector<FileIdentity> identities;
  uint32_t checksum = 0;
  for (const std::string& path : files) {
    shards.push_back(V1Shard::Open(path));
    identities.push_back(shards.back().file().identity());
    checksum = shards.back().ExtendWithChecksums(checksum);
  }
  V1Catalog merged = ReadV1Catalog(shards);
  LocateDenseRecords(shards, merged.names, &merged.catalog);
  auto records = std::make_unique<const V1Records>(std::move(shards), std::move(merged.names),
                                                   merged.catalog.extents);
  auto checkpoint = std::make_shared<const Checkpoint>(std::move(merged.catalog), checksum, mode,
                                                       std::move(records));
  for (uint32_t file = 0; file < files.size(); ++file) {
    CheckSameFile(identities[file], checkpoint->files().Get(file));
  }
  return checkpoint;
}

}  // namespace tensorbundle
