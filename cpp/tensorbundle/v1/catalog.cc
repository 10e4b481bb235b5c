// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/catalog.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/v1/messages.h"

namespace tensorbundle {
namespace {

// A compressed block has at most this many elements per byte: the largest expansion of Snappy, with
// values of one byte.
constexpr uint64_t kMaxElementsPerByte = 22;

// A tensor in one meta, not yet decoded.
struct Listing {
  std::string_view name;
  ByteSpan message;
  uint32_t file;
};

// Merges the metas of all shards into a catalog.
class MetaMerger {
 public:
  explicit MetaMerger(const std::vector<V1Shard>& shards) : shards_(shards) {}

  V1Catalog Merge() {
    for (uint32_t file = 0; file < shards_.size(); ++file) ReadListings(file);
    std::stable_sort(listings_.begin(), listings_.end(),
                     [](const Listing& a, const Listing& b) { return a.name < b.name; });
    for (auto first = listings_.begin(); first != listings_.end();) {
      const auto last = std::find_if(
          first, listings_.end(), [&](const Listing& other) { return other.name != first->name; });
      AddTensor(std::span(first, last));
      first = last;
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void Throw(const Listing& listing, const std::string& what) const {
    throw CorruptionError(shards_[listing.file].path() + ": tensor " + EscapeBytes(listing.name) +
                          ": " + what);
  }

  void ReadListings(uint32_t file) {
    const V1Shard& shard = shards_[file];
    key_limits_.emplace_back(shard.file().size());
    catalog_.files.push_back(shard.path());
    metas_.push_back(shard.ReadMeta());
    const std::optional<SliceMetaList> list = DecodeSliceMetaList(metas_.back().message);
    if (!list) throw CorruptionError(shard.path() + ": the meta of the V1 checkpoint is malformed");
    if (list->versions) CheckVersion(*list->versions, shard.path());
    for (const ByteSpan message : list->tensors) {
      const std::optional<std::string_view> name = DecodeSliceMetaName(message);
      if (!name) throw CorruptionError(shard.path() + ": the meta lists a tensor without a name");
      listings_.push_back({*name, message, file});
    }
  }

  // Adds a tensor from all of its listings.
  void AddTensor(std::span<const Listing> listings) {
    const Listing& first = listings.front();
    Decode(first);
    Tensor tensor;
    tensor.name = catalog_.names.Add(first.name);
    tensor.dtype = static_cast<DataType>(meta_.dtype);
    tensor.rank = static_cast<uint32_t>(meta_.dims.size());
    tensor.first_dim = catalog_.dims.size();
    tensor.num_elements = CheckedElements(first);
    tensor.first_slice = catalog_.slices.size();
    catalog_.dims.insert(catalog_.dims.end(), meta_.dims.begin(), meta_.dims.end());
    for (const Listing& listing : listings) {
      if (&listing != &first) Decode(listing);
      CheckAgreement(tensor, listing, first);
      AddSlices(tensor, listing);
    }
    if (catalog_.slices.size() == tensor.first_slice) AddUnlisted(tensor, first);
    tensor.num_slices = catalog_.slices.size() - tensor.first_slice;
    CheckDuplicates(tensor, first);
    catalog_.tensors.push_back(tensor);
  }

  void Decode(const Listing& listing) {
    if (!DecodeSliceMeta(listing.message, &meta_)) Throw(listing, "malformed entry of the meta");
  }

  // Returns the number of elements of `meta_`'s shape. Throws if their size in bytes overflows.
  uint64_t CheckedElements(const Listing& listing) const {
    const std::optional<uint64_t> volume = CheckedVolume(meta_.dims);
    const DataTypeInfo* info = FindDataType(static_cast<DataType>(meta_.dtype));
    const uint64_t item_size = info == nullptr ? 0 : info->item_size;
    const std::optional<uint64_t> size = volume ? CheckedMul(*volume, item_size) : std::nullopt;
    if (!size || *size > static_cast<uint64_t>(INT64_MAX)) {
      Throw(listing, "impossible shape " + ShapeToString(meta_.dims));
    }
    return *volume;
  }

  // Throws if `meta_` has another type or shape than the first listing.
  void CheckAgreement(const Tensor& tensor, const Listing& listing, const Listing& first) const {
    const auto dtype = static_cast<DataType>(meta_.dtype);
    const std::span<const int64_t> shape = catalog_.Shape(tensor);
    if (dtype == tensor.dtype && std::ranges::equal(meta_.dims, shape)) return;
    Throw(listing, "its type " + DataTypeName(dtype) + " and shape " + ShapeToString(meta_.dims) +
                       " are not the type " + DataTypeName(tensor.dtype) + " and shape " +
                       ShapeToString(shape) + " that it has in " + shards_[first.file].path());
  }

  void AddSlices(const Tensor& tensor, const Listing& listing) {
    for (uint64_t k = 0; k < meta_.num_slices; ++k) {
      AddSlice(tensor, listing,
               std::span(meta_.slice_extents).subspan(k * tensor.rank, tensor.rank));
    }
  }

  void AddSlice(const Tensor& tensor, const Listing& listing, EncodedSlice encoded) {
    StoredSlice slice;
    slice.file = listing.file;
    slice.encoding = Encoding::kRecord;
    const bool whole = std::all_of(encoded.begin(), encoded.end(), [](const Extent& extent) {
      return extent == Extent{0, kFullLength};
    });
    if (!whole) {
      const Box box = Normalize(listing, encoded);
      slice.first_extent = catalog_.extents.size();
      catalog_.extents.insert(catalog_.extents.end(), box.begin(), box.end());
      result_.encodings.Append(encoded);
    }
    LocateBlock(tensor, listing, &slice);
    catalog_.slices.push_back(slice);
  }

  Box Normalize(const Listing& listing, EncodedSlice encoded) const {
    std::optional<Box> box = NormalizeSlice(encoded, meta_.dims);
    if (!box) Throw(listing, DescribeInvalidSlice(encoded, meta_.dims));
    return *std::move(box);
  }

  // Sets the location of the slice to that of the block that must contain its record, if any.
  // Throws if a block of that size cannot hold the elements of the slice, because readers allocate
  // memory for all of them.
  void LocateBlock(const Tensor& tensor, const Listing& listing, StoredSlice* slice) {
    const V1Shard& shard = shards_[listing.file];
    // The key of each slice contains the name, which the meta has only once.
    if (!key_limits_[listing.file].Add(listing.name.size())) {
      Throw(listing, "its name is too long for so many slices");
    }
    const std::string key = result_.encodings.Key(catalog_.extents, tensor, *slice);
    uint64_t max_size = shard.file().size();
    if (const BlockIndexEntry* block = shard.table().FindBlock(key)) {
      slice->offset = block->handle.offset;
      slice->size = max_size = block->handle.size;
    }
    const uint64_t num_elements = Volume(catalog_.BoxOf(tensor, *slice));
    if (num_elements / kMaxElementsPerByte > max_size) {
      Throw(listing, "the " + std::to_string(num_elements) + " elements of a slice of shape " +
                         ShapeToString(meta_.dims) + " cannot be in a block of " +
                         std::to_string(max_size) + " bytes");
    }
  }

  // Adds a slice to a tensor that is listed without slices, as if its record were missing.
  void AddUnlisted(const Tensor& tensor, const Listing& listing) {
    catalog_.warnings.push_back(shards_[listing.file].path() + ": tensor " +
                                EscapeBytes(listing.name) + " is listed without slices");
    AddSlice(tensor, listing, Box(tensor.rank, Extent{0, kFullLength}));
  }

  void CheckDuplicates(const Tensor& tensor, const Listing& listing) const {
    if (tensor.num_slices < 2) return;
    std::vector<Box> boxes;
    boxes.reserve(tensor.num_slices);
    const auto slices = std::span(catalog_.slices).subspan(tensor.first_slice);
    for (const StoredSlice& slice : slices) boxes.push_back(catalog_.BoxOf(tensor, slice));
    const auto before = [](const Extent& a, const Extent& b) {
      return std::pair(a.start, a.length) < std::pair(b.start, b.length);
    };
    std::sort(boxes.begin(), boxes.end(), [&](const Box& a, const Box& b) {
      return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(), before);
    });
    const auto duplicate = std::adjacent_find(boxes.begin(), boxes.end());
    if (duplicate != boxes.end()) {
      Throw(listing, "slice " + ToString(*duplicate) + " is listed twice");
    }
  }

  const std::vector<V1Shard>& shards_;
  std::vector<StoredMeta> metas_;  // the listings borrow from them
  std::vector<Listing> listings_;
  std::vector<ExpansionLimit> key_limits_;  // of each shard
  SliceMeta meta_;                          // of the listing being added
  V1Catalog result_;
  Catalog& catalog_ = result_.catalog;
};

}  // namespace

V1Catalog ReadV1Catalog(const std::vector<V1Shard>& shards) { return MetaMerger(shards).Merge(); }

}  // namespace tensorbundle
