// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/bundle_writer.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/bundle/slice_key.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/table/table_builder.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kTailSize = uint64_t{1} << 20;
// Writes of fewer bytes are buffered: a system call costs as much as the copy of some 10 KiB.
constexpr uint64_t kMinDirectWrite = uint64_t{64} << 10;
constexpr uint64_t kWritebackInterval = uint64_t{64} << 20;

const BundleWriterOptions& Checked(const BundleWriterOptions& options) {
  if (!std::has_single_bit(options.alignment) || options.alignment > kMaxAlignment) {
    throw std::invalid_argument("the alignment must be a power of two from 1 to " +
                                std::to_string(kMaxAlignment) + ", not " +
                                std::to_string(options.alignment));
  }
  if (options.num_shards < 1 || options.num_shards > kMaxShards) {
    throw std::invalid_argument("the number of shards must be from 1 to " +
                                std::to_string(kMaxShards) + ", not " +
                                std::to_string(options.num_shards));
  }
  return options;
}

bool IsSameTensor(const BundleEntry& entry, const SliceInfo& info) {
  return entry.dtype == static_cast<int32_t>(info.dtype) && entry.dims == info.dims;
}

}  // namespace

uint64_t AlignedOffset(uint64_t end, uint64_t size, uint64_t alignment) {
  if (size == 0) return end;
  const uint64_t unit = size >= kLargeSlice ? alignment : std::min(alignment, kSmallAlignment);
  return (end + unit - 1) & ~(unit - 1);
}

BundleWriter::BundleWriter(std::string prefix, const BundleWriterOptions& options)
    : options_(Checked(options)),
      files_(std::move(prefix), options.num_shards, options.overwrite),
      shards_(static_cast<size_t>(options.num_shards)) {}

void BundleWriter::Reserve(const SliceInfo& info) {
  if (info.name.empty()) throw std::invalid_argument("a tensor must have a name");
  const std::lock_guard lock(mutex_);
  const auto [place, is_new] = tensors_.try_emplace(info.name);
  BundleEntry& entry = place->second.entry;
  if (is_new) {
    place->second.is_sliced = info.box.has_value();
    entry.dtype = static_cast<int32_t>(info.dtype);
    entry.dims = info.dims;
    return;
  }
  const std::string name = "the tensor " + EscapeBytes(info.name);
  if (!info.box || !place->second.is_sliced) {
    throw std::invalid_argument(name + " was added before: a name can be used once");
  }
  if (!IsSameTensor(entry, info)) {
    throw std::invalid_argument(name + " has another type or shape in an earlier slice");
  }
}

Placement BundleWriter::Allocate(uint64_t size) {
  const std::lock_guard lock(mutex_);
  const auto smallest = std::min_element(
      shards_.begin(), shards_.end(), [](const Shard& a, const Shard& b) { return a.end < b.end; });
  const auto shard = static_cast<int32_t>(smallest - shards_.begin());
  return AllocateIn(shard, size);
}

Placement BundleWriter::Allocate(int32_t shard, uint64_t size) {
  const std::lock_guard lock(mutex_);
  return AllocateIn(shard, size);
}

Placement BundleWriter::AllocateIn(int32_t number, uint64_t size) {
  Shard& shard = shards_.at(static_cast<size_t>(number));
  const uint64_t offset = AlignedOffset(shard.end, size, options_.alignment);
  if (!RangeFits(offset, size, kMaxFileSize)) {
    const std::string path = files_.DataFile(number).path();
    throw IOFailure(path + " would have more than " + std::to_string(kMaxFileSize) + " bytes", path,
                    EFBIG);
  }
  const Placement place{number, offset, size, offset - shard.end};
  shard.end = offset + size;
  return place;
}

void BundleWriter::CreateDataFile(int32_t shard, uint64_t size) {
  const std::lock_guard lock(mutex_);
  AtomicFile& file = files_.DataFile(shard);
  shards_.at(static_cast<size_t>(shard)).file = &file;
  if (size > 0) file.Resize(size);
}

void BundleWriter::FinishDataFile(int32_t number) {
  const std::lock_guard lock(mutex_);
  Shard& shard = shards_.at(static_cast<size_t>(number));
  if (shard.file == nullptr) return;
  FlushTail(&shard);
  shard.file->Finish();
}

AtomicFile& BundleWriter::FileOf(int32_t number) {
  Shard& shard = shards_.at(static_cast<size_t>(number));
  if (shard.file == nullptr) shard.file = &files_.DataFile(number);
  return *shard.file;
}

uint32_t BundleWriter::Write(const Placement& place, uint64_t start, ByteSpan bytes) {
  if (start > place.size || bytes.size() > place.size - start) {
    throw std::invalid_argument("the bytes exceed their slice");
  }
  if (bytes.size() < kMinDirectWrite) {
    Buffer(place, start, bytes);
    return crc32c::Value(bytes.data(), bytes.size());
  }
  const AtomicFile& file = [&]() -> const AtomicFile& {
    const std::lock_guard lock(mutex_);
    return FileOf(place.shard);
  }();
  const size_t count = (bytes.size() + kReadChunkSize - 1) / kReadChunkSize;
  std::vector<uint32_t> checksums(count);
  const auto chunk_of = [&](size_t i) {
    const uint64_t at = i * kReadChunkSize;
    return bytes.subspan(at, std::min<uint64_t>(kReadChunkSize, bytes.size() - at));
  };
  ParallelFor(count, std::min(options_.threads, kMaxCopyThreads), [&](size_t i) {
    const ByteSpan chunk = chunk_of(i);
    checksums[i] = crc32c::Value(chunk.data(), chunk.size());
    file.WriteAt(place.offset + start + i * kReadChunkSize, chunk);
  });
  uint32_t checksum = 0;
  for (size_t i = 0; i < count; ++i) {
    checksum = crc32c::Combine(checksum, checksums[i], chunk_of(i).size());
  }
  const std::lock_guard lock(mutex_);
  CountWritten(&shards_[static_cast<size_t>(place.shard)], bytes.size());
  return checksum;
}

// Appends bytes to the buffer of their shard, after flushing it if they do not continue it.
void BundleWriter::Buffer(const Placement& place, uint64_t start, ByteSpan bytes) {
  const std::lock_guard lock(mutex_);
  FileOf(place.shard);
  if (bytes.empty()) return;
  Shard& shard = shards_[static_cast<size_t>(place.shard)];
  const uint64_t padding = start == 0 ? place.padding : 0;
  const uint64_t offset = place.offset + start;
  const bool continues = shard.tail_start + shard.tail.size() == offset - padding &&
                         padding + bytes.size() <= kTailSize - shard.tail.size();
  if (!continues) {
    FlushTail(&shard);
    shard.tail_start = offset;
  } else {
    shard.tail.resize(shard.tail.size() + padding);
  }
  shard.tail.insert(shard.tail.end(), bytes.begin(), bytes.end());
}

void BundleWriter::FlushTail(Shard* shard) {
  if (shard->tail.empty()) return;
  shard->file->WriteAt(shard->tail_start, shard->tail);
  CountWritten(shard, shard->tail.size());
  shard->tail.clear();
}

// Starts the writing to the disk from time to time, so that Publish() has less to wait for.
void BundleWriter::CountWritten(Shard* shard, uint64_t bytes) {
  shard->since_writeback += bytes;
  if (shard->since_writeback < kWritebackInterval) return;
  shard->since_writeback = 0;
  shard->file->StartWriteback();
}

const OutputFile& BundleWriter::DataFile(int32_t shard) {
  const std::lock_guard lock(mutex_);
  return FileOf(shard);
}

void BundleWriter::Record(const SliceInfo& info, const Placement& place, uint32_t masked_checksum) {
  BundleEntry stored;
  stored.dtype = static_cast<int32_t>(info.dtype);
  stored.dims = info.box ? Lengths(*info.box) : info.dims;
  stored.shard = place.shard;
  stored.offset = static_cast<int64_t>(place.offset);
  stored.size = static_cast<int64_t>(place.size);
  stored.has_checksum = true;
  stored.masked_checksum = masked_checksum;
  const std::lock_guard lock(mutex_);
  TensorRecord& tensor = tensors_.at(info.name);
  BundleEntry& entry = tensor.entry;
  if (!info.box) {
    entry = std::move(stored);
    tensor.is_complete = true;
    return;
  }
  const std::string key = SliceKey(info.name, *info.box);
  if (!records_.emplace(key, EncodeBundleEntry(stored)).second) {
    throw std::invalid_argument("the tensor " + EscapeBytes(info.name) + " has the slice " +
                                ToString(*info.box) + " already");
  }
  tensor.is_complete = true;
  ++entry.num_slices;
  entry.slice_extents.insert(entry.slice_extents.end(), info.box->begin(), info.box->end());
}

void BundleWriter::PutRecord(std::string key, std::string record) {
  const std::lock_guard lock(mutex_);
  records_.insert_or_assign(std::move(key), std::move(record));
}

void BundleWriter::Publish() {
  {
    const std::lock_guard lock(mutex_);
    for (Shard& shard : shards_) {
      if (shard.file != nullptr) FlushTail(&shard);
      shard.tail = {};
    }
  }
  files_.Publish([this](int32_t num_shards) { return BuildIndex(num_shards); });
}

std::string BundleWriter::BuildIndex(int32_t num_shards) const {
  std::map<std::string_view, std::string> entries;
  entries.emplace("", EncodeBundleHeader({.num_shards = num_shards}));
  for (const auto& [name, tensor] : tensors_) {
    if (!tensor.is_complete) {
      throw std::invalid_argument("the tensor " + EscapeBytes(name) + " is not complete");
    }
    entries.emplace(name, EncodeBundleEntry(tensor.entry));
  }
  for (const auto& [key, record] : records_) {
    if (!entries.emplace(key, record).second && !key.empty()) {
      throw std::invalid_argument("the name " + EscapeBytes(key) +
                                  " is the key of another tensor's slice");
    }
    if (key.empty()) entries[""] = record;
  }
  TableBuilder table;
  for (const auto& [key, record] : entries) table.Add(key, record);
  return table.Finish();
}

void CopyTensors(BundleWriter* writer, std::span<const TensorCopy> tensors,
                 const WriteProgress& progress) {
  std::vector<SliceInfo> infos;
  std::vector<Placement> places;
  std::vector<SliceCopy> copies;
  for (const TensorCopy& each : tensors) {
    const Catalog& catalog = each.checkpoint->catalog();
    const Tensor& tensor = *each.tensor;
    const std::span<const int64_t> dims = catalog.Shape(tensor);
    for (const StoredSlice& slice : catalog.Slices(tensor)) {
      SliceCopy copy = CopyOf(each.checkpoint, tensor, slice);
      SliceInfo info{each.name, tensor.dtype, {dims.begin(), dims.end()}, {}};
      if (slice.first_extent != StoredSlice::kWholeTensor) info.box = catalog.BoxOf(tensor, slice);
      writer->Reserve(info);
      const Placement place = writer->Allocate(slice.size);
      copy.to = &writer->DataFile(place.shard);
      copy.to_offset = place.offset;
      infos.push_back(std::move(info));
      places.push_back(place);
      copies.push_back(std::move(copy));
    }
  }
  CopySlices(copies, writer->threads(), progress);
  for (size_t i = 0; i < infos.size(); ++i) {
    writer->Record(infos[i], places[i], copies[i].masked_checksum);
  }
}

}  // namespace tensorbundle
