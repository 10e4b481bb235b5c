// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/index_reader.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <unordered_map>
#include <utility>

#include "tensorbundle/base/arena.h"
#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/table/table.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kMaxIndexSize = uint64_t{1} << 30;
constexpr char kV1FirstByte = 0x0a;  // SavedTensorSlices.meta; a V2 header starts with num_shards

// Estimates for indexes that TensorFlow writes, to allocate the tables once: a record has at least
// 30 bytes, and keys share most of their prefixes. Unused pages cost no memory.
constexpr uint64_t kUsualRecordSize = 30;
constexpr uint64_t kUsualKeyExpansion = 2;

uint64_t StoredSize(const Table& table) {
  uint64_t size = 0;
  for (const BlockIndexEntry& block : table.blocks()) size += block.handle.size;
  return size;
}

// A record whose key starts with a zero byte. It may be a slice record, and is kept until the
// tensor that lists it is read.
struct EarlyRecord {
  std::string_view key;
  std::string_view value;
  bool is_slice = false;
  bool is_listed = false;  // by a tensor
};

// Builds the catalog from the records of one index, in their order.
class IndexLoader {
 public:
  IndexLoader(std::string prefix, const Table& table)
      : path_(table.source().path()),
        prefix_(std::move(prefix)),
        stored_size_(StoredSize(table)),
        names_(kUsualKeyExpansion * stored_size_),
        records_(table, &names_) {}

  BundleIndex Load() {
    ReadHeader();
    const uint64_t expected = stored_size_ / kUsualRecordSize;
    catalog_.tensors.reserve(expected);
    catalog_.slices.reserve(expected);
    catalog_.dims.reserve(2 * expected);  // most tensors are vectors and matrices
    bool more = ReadEarlyRecords();
    for (const EarlyRecord& record : early_) {
      if (!record.is_slice) AddTensor(record.key, AsBytes(record.value));
    }
    for (; more; more = records_.Next()) AddTensor(records_.key(), records_.value());
    CheckOrphans();
    catalog_.big_endian = header_.big_endian;
    catalog_.names = std::move(names_);
    return {std::move(catalog_), records_.checksum(), std::nullopt};
  }

 private:
  [[noreturn]] void Throw(std::string_view name, const std::string& what) const {
    throw CorruptionError(path_ + ": tensor " + EscapeBytes(name) + ": " + what);
  }

  void ReadHeader() {
    if (!records_.Next() || !records_.key().empty()) {
      throw CorruptionError(path_ +
                            ": the first key is not the empty one: there is no bundle header");
    }
    const std::string_view header = AsText(records_.value());
    if (!header.empty() && header[0] == kV1FirstByte) {
      throw CorruptionError(
          path_ + " is a V1 checkpoint with the name of a V2 index; rename it without .index");
    }
    header_ = DecodeBundleHeader(records_.value(), path_);
  }

  // Reads the records whose keys start with a zero byte: all slice records, and tensors with
  // unusual names. They come first in the index. Leaves the iterator at the first other record.
  // Returns false if all records are of these kinds.
  //
  // Slices are looked up from the tensor that lists them; their keys are never decoded for that. No
  // tensor name that TensorFlow writes is a complete slice key.
  bool ReadEarlyRecords() {
    while (records_.Next()) {
      const std::string_view key = records_.key();
      if (key[0] != '\0') return true;
      early_.push_back({key, early_values_.Add(AsText(records_.value())), IsSliceKey(key)});
    }
    return false;
  }

  EarlyRecord* FindEarly(std::string_view key) {
    const auto found = std::ranges::lower_bound(early_, key, {}, &EarlyRecord::key);
    return found == early_.end() || found->key != key ? nullptr : &*found;
  }

  // Decodes and checks a record. Returns its number of elements.
  uint64_t DecodeRecord(ByteSpan value, std::string_view tensor_name, BundleEntry* record) const {
    if (!DecodeBundleEntry(value, record)) Throw(tensor_name, "malformed index record");
    const std::optional<uint64_t> volume = CheckedVolume(record->dims);
    if (!volume) Throw(tensor_name, "impossible shape " + ShapeToString(record->dims));
    return *volume;
  }

  void AddTensor(std::string_view name, ByteSpan value) {
    const uint64_t volume = DecodeRecord(value, name, &record_);
    CheckByteCount(name, volume);
    Tensor tensor;
    tensor.name = name;
    tensor.dtype = static_cast<DataType>(record_.dtype);
    tensor.rank = static_cast<uint32_t>(record_.dims.size());
    tensor.first_dim = catalog_.dims.size();
    tensor.num_elements = volume;
    tensor.first_slice = catalog_.slices.size();
    tensor.num_slices = record_.num_slices == 0 ? 1 : record_.num_slices;
    catalog_.dims.insert(catalog_.dims.end(), record_.dims.begin(), record_.dims.end());
    if (record_.num_slices == 0) {
      catalog_.slices.push_back(MakeSlice(record_, name, tensor.num_elements));
    } else {
      AddSlices(name);
    }
    catalog_.tensors.push_back(tensor);
  }

  // Checks that the size in bytes of `record_`'s shape does not overflow. The sizes of the slices
  // of a partitioned tensor do not bound it.
  void CheckByteCount(std::string_view name, uint64_t volume) const {
    const DataTypeInfo* info = FindDataType(static_cast<DataType>(record_.dtype));
    if (info == nullptr) return;
    const std::optional<uint64_t> size = CheckedMul(volume, info->item_size);
    if (!size || *size > static_cast<uint64_t>(INT64_MAX)) {
      Throw(name, "impossible shape " + ShapeToString(record_.dims) + " of " + info->name);
    }
  }

  // Finds the record of every slice that `record_` lists, by the key that the record must have.
  void AddSlices(std::string_view name) {
    const size_t rank = record_.dims.size();
    for (uint64_t k = 0; k < record_.num_slices; ++k) {
      const EncodedSlice encoded = std::span(record_.slice_extents).subspan(k * rank, rank);
      EarlyRecord* const found = FindEarly(SliceKey(name, encoded));
      if (found == nullptr) {
        Throw(name, "the index lists slice " + ToString(Normalize(name, encoded)) +
                        " but has no record of it");
      }
      if (found->is_listed) {
        Throw(name, "slice " + ToString(Normalize(name, encoded)) + " is listed twice");
      }
      found->is_listed = true;
      AddSlice(name, AsBytes(found->value), Normalize(name, encoded));
    }
  }

  // Returns the box of a slice. Throws CorruptionError if it is not inside the tensor.
  Box Normalize(std::string_view name, EncodedSlice encoded) const {
    std::optional<Box> box = NormalizeSlice(encoded, record_.dims);
    if (!box) Throw(name, DescribeInvalidSlice(encoded, record_.dims));
    return *std::move(box);
  }

  void AddSlice(std::string_view name, ByteSpan value, const Box& box) {
    DecodeRecord(value, name, &slice_record_);
    const bool same_shape =
        std::equal(box.begin(), box.end(), slice_record_.dims.begin(), slice_record_.dims.end(),
                   [](const Extent& extent, int64_t dim) { return extent.length == dim; });
    if (!same_shape || slice_record_.dtype != record_.dtype || slice_record_.num_slices != 0) {
      Throw(name, "the record of slice " + ToString(box) + " has shape " +
                      ShapeToString(slice_record_.dims) + " and type " +
                      DataTypeName(static_cast<DataType>(slice_record_.dtype)) +
                      ", which is not that slice of a tensor of type " +
                      DataTypeName(static_cast<DataType>(record_.dtype)));
    }
    StoredSlice slice = MakeSlice(slice_record_, name, Volume(box));
    slice.first_extent = catalog_.extents.size();
    catalog_.extents.insert(catalog_.extents.end(), box.begin(), box.end());
    catalog_.slices.push_back(slice);
  }

  // Checks the shard, offset and size of a record. Only the data files are not checked.
  StoredSlice MakeSlice(const BundleEntry& record, std::string_view name, uint64_t num_elements) {
    if (record.shard < 0 || record.shard >= header_.num_shards) {
      Throw(name, "it is in shard " + std::to_string(record.shard) + " of " +
                      std::to_string(header_.num_shards));
    }
    const auto offset = static_cast<uint64_t>(record.offset);
    const auto size = static_cast<uint64_t>(record.size);
    if (record.offset < 0 || record.size < 0 || offset + size > static_cast<uint64_t>(INT64_MAX)) {
      Throw(name, "impossible location: offset " + std::to_string(record.offset) + ", size " +
                      std::to_string(record.size));
    }
    const auto dtype = static_cast<DataType>(record.dtype);
    CheckSize(dtype, num_elements, size, name);
    StoredSlice slice;
    slice.offset = offset;
    slice.size = size;
    slice.file = FileOfShard(record.shard);
    if (size > 0) {
      uint64_t& end = catalog_.file_ends[slice.file];
      end = std::max(end, offset + size);
    }
    slice.masked_checksum = record.masked_checksum;
    slice.has_checksum = record.has_checksum;
    slice.encoding = EncodingOf(dtype);
    return slice;
  }

  void CheckSize(DataType dtype, uint64_t num_elements, uint64_t size,
                 std::string_view name) const {
    const DataTypeInfo* info = FindDataType(dtype);
    if (info == nullptr) return;  // an unsupported type is listed, but never read
    const bool is_variable = HasVariableSize(dtype);
    const std::optional<uint64_t> least = is_variable
                                              ? MinElementsSize(EncodingOf(dtype), num_elements)
                                              : CheckedMul(num_elements, info->item_size);
    const bool fits = least && (is_variable ? size >= *least : size == *least);
    if (!fits) {
      Throw(name, "its " + std::to_string(num_elements) + " elements of " + info->name +
                      " cannot take " + std::to_string(size) + " bytes");
    }
  }

  // Checks the slice records that no tensor lists. They are not part of the catalog.
  void CheckOrphans() {
    size_t orphans = 0;
    for (const EarlyRecord& record : early_) {
      if (record.is_listed || !record.is_slice) continue;
      DecodeRecord(AsBytes(record.value), record.key, &slice_record_);
      ++orphans;
    }
    if (orphans > 0) {
      catalog_.warnings.push_back(path_ + ": " + std::to_string(orphans) +
                                  " slice records belong to no listed tensor");
    }
  }

  // Returns the number of the file of a shard in the catalog. Only shards that hold a slice get
  // one, because a header may claim many more.
  uint32_t FileOfShard(int32_t shard) {
    if (shard == last_shard_) return last_file_;
    last_shard_ = shard;
    last_file_ = FindFile(shard);
    return last_file_;
  }

  uint32_t FindFile(int32_t shard) {
    const auto [found, is_new] =
        file_of_shard_.try_emplace(shard, static_cast<uint32_t>(catalog_.files.size()));
    if (is_new) {
      catalog_.files.push_back(DataFilePath(prefix_, shard, header_.num_shards));
      catalog_.file_ends.push_back(0);
    }
    return found->second;
  }

  std::string path_;
  std::string prefix_;
  uint64_t stored_size_;
  ByteArena names_;
  TableIterator records_;
  BundleHeader header_;
  Catalog catalog_;
  std::vector<EarlyRecord> early_;  // in the order of their keys
  ByteArena early_values_;
  std::unordered_map<int32_t, uint32_t> file_of_shard_;
  int32_t last_shard_ = -1;  // records of one shard are mostly consecutive
  uint32_t last_file_ = 0;
  BundleEntry record_;        // of the tensor being added
  BundleEntry slice_record_;  // of the slice being added
};

}  // namespace

std::shared_ptr<const File> OpenIndexFile(const std::string& prefix, const FileOpener& opener) {
  const std::string path = prefix + ".index";
  std::shared_ptr<const File> file = opener ? opener(path, ReadMode::kBuffered) : File::Open(path);
  if (file->size() > kMaxIndexSize) {
    throw UnsupportedError(path + " has " + std::to_string(file->size()) +
                           " bytes; an index of more than " + std::to_string(kMaxIndexSize) +
                           " is not read");
  }
  return file;
}

BundleIndex ReadBundleIndex(const std::string& prefix) {
  std::shared_ptr<const File> file = OpenIndexFile(prefix);
  const IndexFile index_file{file->path(), file->identity()};
  BundleIndex index;
  try {
    index = ReadBundleIndex(prefix, std::make_shared<FileSource>(std::move(file)));
  } catch (const CorruptionError& error) {
    // A mix of an old and a new index is not corruption.
    if (index_file.WasReplaced()) {
      throw IndexReplacedError(index_file.path +
                               " was rewritten while it was read: " + error.what());
    }
    throw;
  }
  index.file = index_file;
  return index;
}

BundleIndex ReadBundleIndex(const std::string& prefix, std::shared_ptr<const ByteSource> index) {
  const Table table = Table::Open(std::move(index));
  return IndexLoader(prefix, table).Load();
}

std::string DataFilePath(const std::string& prefix, int32_t shard, int32_t num_shards) {
  char suffix[48];
  std::snprintf(suffix, sizeof(suffix), ".data-%05d-of-%05d", shard, num_shards);
  return prefix + suffix;
}

}  // namespace tensorbundle
