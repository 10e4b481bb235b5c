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

// A slice that may be dense, and the key of its record.
struct Candidate {
  std::string key;
  const Tensor* tensor;
  StoredSlice* slice;
  uint64_t payload_size;
};

bool IsDense(DataType dtype) {
  const ValueField* field = FindValueField(dtype);
  return field != nullptr && field->is_dense();
}

// Returns the bytes before the payload of a record that TensorFlow wrote.
std::string HeadOf(const Tensor& tensor, EncodedSlice encoded, uint64_t payload_size) {
  return PackedRecordHead(tensor.name, encoded, FindValueField(tensor.dtype)->number, payload_size);
}

// Returns the offset of the payload of the scanner's entry, or nothing if the entry is not the
// record that TensorFlow writes for the slice.
std::optional<uint64_t> PayloadAt(EntryScanner* entry, const Tensor& tensor, EncodedSlice encoded,
                                  uint64_t payload_size) {
  const std::string head = HeadOf(tensor, encoded, payload_size);
  if (entry->value_size() != head.size() + payload_size) return std::nullopt;
  if (AsText(entry->ValueHead(head.size())) != head) return std::nullopt;
  return entry->value_offset() + head.size();
}

// Scans the blocks of one shard for the slices that may be dense.
class ShardScan {
 public:
  ShardScan(const V1Shard& shard, const SliceEncodings& encodings, Catalog* catalog)
      : shard_(shard), encodings_(encodings), catalog_(*catalog), window_(shard.table().source()) {}

  void Add(const Tensor& tensor, StoredSlice* slice) {
    const uint64_t item_size = FindDataType(tensor.dtype)->item_size;
    const uint64_t num_elements = Volume(catalog_.BoxOf(tensor, *slice));
    // TensorFlow writes no field for an empty slice.
    if (num_elements == 0) return;
    candidates_.push_back({encodings_.Key(catalog_.extents, tensor, *slice), &tensor, slice,
                           num_elements * item_size});
  }

  void Run() {
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.key < b.key; });
    auto next = candidates_.begin();
    for (const BlockIndexEntry& block : shard_.table().blocks()) {
      const auto end = std::find_if(next, candidates_.end(), [&](const Candidate& candidate) {
        return candidate.key > block.separator;
      });
      if (next != end) ScanBlock(block.handle, std::span(next, end));
      next = end;
    }
  }

 private:
  void ScanBlock(const BlockHandle& handle, std::span<Candidate> candidates) {
    std::optional<EntryScanner> entry = EntryScanner::Open(handle, &window_);
    auto next = candidates.begin();
    while (entry && next != candidates.end() && entry->Next()) {
      while (next != candidates.end() && next->key < entry->key()) ++next;
      if (next != candidates.end() && next->key == entry->key()) Locate(&*entry, *next++);
    }
  }

  void Locate(EntryScanner* entry, const Candidate& candidate) {
    const std::vector<Extent> encoded =
        encodings_.Encode(catalog_.extents, *candidate.tensor, *candidate.slice);
    const std::optional<uint64_t> payload =
        PayloadAt(entry, *candidate.tensor, encoded, candidate.payload_size);
    if (!payload) return;
    candidate.slice->encoding = Encoding::kDense;
    candidate.slice->offset = *payload;
    candidate.slice->size = candidate.payload_size;
  }

  const V1Shard& shard_;
  const SliceEncodings& encodings_;
  const Catalog& catalog_;
  ReadWindow window_;
  std::vector<Candidate> candidates_;
};

}  // namespace

void LocateDenseRecords(const std::vector<V1Shard>& shards, const SliceEncodings& encodings,
                        Catalog* catalog) {
  std::vector<ShardScan> scans;
  scans.reserve(shards.size());
  for (const V1Shard& shard : shards) scans.emplace_back(shard, encodings, catalog);
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
                                          EncodedSlice encoded, const StoredSlice& slice) {
  const std::string key = SliceKey(tensor.name, encoded);
  const BlockIndexEntry* block = shard.table().FindBlock(key);
  if (block == nullptr) return std::nullopt;
  ReadWindow window(shard.table().source());
  std::optional<EntryScanner> entry = EntryScanner::Open(block->handle, &window);
  while (entry && entry->Next()) {
    if (entry->key() == key) return PayloadAt(&*entry, tensor, encoded, slice.size);
  }
  return std::nullopt;
}

std::optional<uint64_t> LocateDenseRecord(const StoredRecord& record, const Tensor& tensor,
                                          EncodedSlice encoded, const StoredSlice& slice) {
  const std::string head = HeadOf(tensor, encoded, slice.size);
  const std::optional<uint64_t> offset = record.block->OffsetInFile(record.value);
  if (!offset || record.value.size() != head.size() + slice.size) return std::nullopt;
  if (AsText(record.value.first(head.size())) != head) return std::nullopt;
  return *offset + head.size();
}

}  // namespace tensorbundle
