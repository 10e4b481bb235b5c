// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/dense_records.h"

#include <algorithm>
#include <string>

#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/v1/messages.h"
#include "tensorbundle/v1/shard.h"
#include "tensorbundle/v1/values.h"

namespace tensorbundle {
namespace {

// A record to look for, and the slice that it is of.
struct Wanted {
  std::string key;
  const Tensor* tensor;
  StoredSlice* slice;
  uint64_t payload_size;
};

bool IsDense(DataType dtype) {
  const ValueField* field = FindValueField(dtype);
  return field != nullptr && field->is_dense();
}

// What comes before the payload when the record is spelled as TensorFlow spells it.
std::string HeadOf(const Tensor& tensor, std::span<const Extent> spelled, uint64_t payload_size) {
  return PackedRecordHead(tensor.name, spelled, FindValueField(tensor.dtype)->number, payload_size);
}

// The payload's place in the entry where the scanner is, when the record there is the tensor's.
std::optional<uint64_t> PayloadAt(EntryScanner* entry, const Tensor& tensor,
                                  std::span<const Extent> spelled, uint64_t payload_size) {
  const std::string head = HeadOf(tensor, spelled, payload_size);
  if (entry->value_size() != head.size() + payload_size) return std::nullopt;
  if (AsText(entry->ValueHead(head.size())) != head) return std::nullopt;
  return entry->value_offset() + head.size();
}

// The slices of one shard that may be dense, in the order of their keys.
class ShardScan {
 public:
  ShardScan(const V1Shard& shard, const SliceNames& names, Catalog* catalog)
      : shard_(shard), names_(names), catalog_(*catalog), window_(shard.table().source()) {}

  void Add(const Tensor& tensor, StoredSlice* slice) {
    const uint64_t item_size = FindDataType(tensor.dtype)->item_size;
    const uint64_t num_elements = Volume(catalog_.BoxOf(tensor, *slice));
    // No TensorFlow writes a field without values, and there would be nothing to look at.
    if (num_elements == 0) return;
    wanted_.push_back(
        {names_.Key(catalog_.extents, tensor, *slice), &tensor, slice, num_elements * item_size});
  }

  void Run() {
    std::sort(wanted_.begin(), wanted_.end(),
              [](const Wanted& a, const Wanted& b) { return a.key < b.key; });
    auto next = wanted_.begin();
    for (const BlockIndexEntry& block : shard_.table().blocks()) {
      const auto end = std::find_if(
          next, wanted_.end(), [&](const Wanted& wanted) { return wanted.key > block.separator; });
      if (next != end) ScanBlock(block.handle, std::span(next, end));
      next = end;
    }
  }

 private:
  void ScanBlock(const BlockHandle& handle, std::span<Wanted> wanted) {
    std::optional<EntryScanner> entry = EntryScanner::Open(handle, &window_);
    auto next = wanted.begin();
    while (entry && next != wanted.end() && entry->Next()) {
      while (next != wanted.end() && next->key < entry->key()) ++next;
      if (next != wanted.end() && next->key == entry->key()) Locate(&*entry, *next++);
    }
  }

  void Locate(EntryScanner* entry, const Wanted& wanted) {
    const Box spelled = names_.Spelled(catalog_.extents, *wanted.tensor, *wanted.slice);
    const std::optional<uint64_t> payload =
        PayloadAt(entry, *wanted.tensor, spelled, wanted.payload_size);
    if (!payload) return;
    wanted.slice->encoding = Encoding::kDense;
    wanted.slice->offset = *payload;
    wanted.slice->size = wanted.payload_size;
  }

  const V1Shard& shard_;
  const SliceNames& names_;
  const Catalog& catalog_;
  ReadWindow window_;
  std::vector<Wanted> wanted_;
};

}  // namespace

void LocateDenseRecords(const std::vector<V1Shard>& shards, const SliceNames& names,
                        Catalog* catalog) {
  std::vector<ShardScan> scans;
  scans.reserve(shards.size());
  for (const V1Shard& shard : shards) scans.emplace_back(shard, names, catalog);
  for (const Tensor& tensor : catalog->tensors) {
    if (!IsDense(tensor.dtype)) continue;
    for (StoredSlice& slice :
         std::span(catalog->slices).subspan(tensor.first_slice, tensor.num_slices)) {
      scans[slice.file].Add(tensor, &slice);
    }
  }
  for (ShardScan& scan : scans) scan.Run();
}

std::optional<uint64_t> LocateDenseRecord(const V1Shard& shard, const Tensor& tensor,
                                          std::span<const Extent> spelled,
                                          const StoredSlice& slice) {
  const std::string key = SliceKey(tensor.name, spelled);
  const BlockIndexEntry* block = shard.table().FindBlock(key);
  if (block == nullptr) return std::nullopt;
  ReadWindow window(shard.table().source());
  std::optional<EntryScanner> entry = EntryScanner::Open(block->handle, &window);
  while (entry && entry->Next()) {
    if (entry->key() == key) return PayloadAt(&*entry, tensor, spelled, slice.size);
  }
  return std::nullopt;
}

std::optional<uint64_t> LocateDenseRecord(const StoredRecord& record, const Tensor& tensor,
                                          std::span<const Extent> spelled,
                                          const StoredSlice& slice) {
  const std::string head = HeadOf(tensor, spelled, slice.size);
  const std::optional<uint64_t> offset = record.block->OffsetInFile(record.value);
  if (!offset || record.value.size() != head.size() + slice.size) return std::nullopt;
  if (AsText(record.value.first(head.size())) != head) return std::nullopt;
  return *offset + head.size();
}

}  // namespace tensorbundle
