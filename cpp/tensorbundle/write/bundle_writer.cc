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
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/table/table_builder.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kTailSize = uint64_t{1} << 20;
// Writes of fewer bytes are buffered: a system call costs as much as the copy of some 10 KiB.
constexpr uint64_t kMinDirectWrite = uint64_t{64} << 10;
constexpr uint64_t kWritebackInterval = uint64_t{64} << 20;

// Bounds the memory of a copy: each thread has one chunk.
constexpr int kMaxThreads = 32;
// Tasks that are copied before their checksums are compared: few enough to detect corruption soon,
// enough to make the cost of starting threads negligible.
constexpr size_t kMaxBatch = 256;

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

// A range of a slice that one thread copies.
struct CopyTask {
  const SliceCopy* slice;
  uint64_t start;  // in the slice
  uint64_t size;
  std::optional<uint32_t> checksum{};
};

class SliceCopier {
 public:
  using FileOf = std::function<const AtomicFile&(int32_t shard)>;

  SliceCopier(FileOf file_of, int threads, const WriteProgress& progress)
      : file_of_(std::move(file_of)), threads_(threads), progress_(progress) {}

  void Add(const SliceCopy& slice) {
    const uint64_t size = slice.to.size;
    if (slice.encoding != Encoding::kDense || size == 0) {
      AddTask({&slice, 0, size});  // StreamingElements needs all bytes in order
      return;
    }
    for (uint64_t start = 0; start < size; start += kReadChunkSize) {
      AddTask({&slice, start, std::min(kReadChunkSize, size - start)});
    }
  }

  // Copies the slices that were added since the last call.
  void Flush() {
    ParallelFor(batch_.size(), std::min(threads_, kMaxThreads),
                [&](size_t i) { Copy(&batch_[i]); });
    for (const CopyTask& task : batch_) VerifyChecksum(task);
    if (!batch_.empty()) file_of_(batch_.back().slice->to.shard).StartWriteback();
    batch_.clear();
  }

 private:
  void AddTask(const CopyTask& task) {
    batch_.push_back(task);
    if (batch_.size() == kMaxBatch) Flush();
  }

  void Copy(CopyTask* task) const {
    const SliceCopy& slice = *task->slice;
    const AtomicFile& out = file_of_(slice.to.shard);
    const uint64_t chunk = std::min(kReadChunkSize, task->size);
    const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(chunk);
    const auto read = [&](uint64_t at, uint64_t size) {
      const MutableByteSpan bytes(buffer.get(), size);
      slice.source->ReadAt(slice.offset + at, bytes);
      out.WriteAt(slice.to.offset + at, bytes);
      progress_(size);
      return ByteSpan(bytes);
    };
    if (slice.encoding == Encoding::kDense) {
      const ByteSpan bytes = read(task->start, task->size);
      task->checksum = crc32c::Value(bytes.data(), bytes.size());
      return;
    }
    StreamingElements elements(slice.encoding, slice.num_elements, slice.big_endian);
    for (uint64_t at = 0; at < task->size; at += chunk) {
      elements.Extend(read(at, std::min(chunk, task->size - at)));
    }
    task->checksum = elements.Value();
  }

  // Combines the checksum of a task with those of the tasks before it. Compares the checksum of the
  // slice after its last task.
  void VerifyChecksum(const CopyTask& task) {
    const SliceCopy& slice = *task.slice;
    if (!task.checksum) Throw(slice, "its elements are malformed, or a checksum in them differs");
    if (task.start == 0) checksum_ = 0;
    checksum_ = crc32c::Combine(checksum_, *task.checksum, task.size);
    if (task.start + task.size < slice.to.size) return;
    if (!slice.has_checksum) Throw(slice, "the index stores no checksum to verify it with");
    const uint32_t expected = crc32c::Unmask(slice.masked_checksum);
    if (checksum_ != expected) {
      Throw(slice, "the stored CRC32C is " + std::to_string(expected) + ", the bytes give " +
                       std::to_string(checksum_));
    }
  }

  [[noreturn]] static void Throw(const SliceCopy& slice, const std::string& what) {
    throw CorruptionError(slice.source->path() + ": " + slice.describe() + " at offset " +
                          std::to_string(slice.offset) + ", " + std::to_string(slice.to.size) +
                          " bytes: " + what);
  }

  const FileOf file_of_;
  const int threads_;
  const WriteProgress& progress_;
  std::vector<CopyTask> batch_;
  uint32_t checksum_ = 0;  // of the current slice, up to the current task
};

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
  ParallelFor(count, std::min(options_.threads, kMaxThreads), [&](size_t i) {
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

void BundleWriter::Copy(std::span<const SliceCopy> slices, const WriteProgress& progress) {
  {
    const std::lock_guard lock(mutex_);
    for (const SliceCopy& slice : slices) FileOf(slice.to.shard);
  }
  SliceCopier copier(
      [this](int32_t shard) -> const AtomicFile& {
        return *shards_[static_cast<size_t>(shard)].file;
      },
      options_.threads, progress);
  for (const SliceCopy& slice : slices) copier.Add(slice);
  copier.Flush();
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

bool CanCopyTensors(const Checkpoint& checkpoint) {
  const bool is_v1 = checkpoint.records() != nullptr;  // its checksums are of blocks, not slices
  return !is_v1 && !checkpoint.catalog().big_endian;
}

void CopyTensors(BundleWriter* writer, std::span<const TensorCopy> tensors,
                 const WriteProgress& progress) {
  std::vector<SliceInfo> infos;
  std::vector<SliceCopy> copies;
  for (const TensorCopy& each : tensors) {
    const Catalog& catalog = each.checkpoint->catalog();
    const Tensor& tensor = *each.tensor;
    const std::span<const int64_t> dims = catalog.Shape(tensor);
    for (const StoredSlice& slice : catalog.Slices(tensor)) {
      each.checkpoint->CheckSlice(tensor, slice, Compared::kYes);
      SliceInfo info{each.name, tensor.dtype, {dims.begin(), dims.end()}, {}};
      const Box box = catalog.BoxOf(tensor, slice);
      if (slice.first_extent != StoredSlice::kWholeTensor) info.box = box;
      writer->Reserve(info);
      infos.push_back(std::move(info));
      copies.push_back({{each.checkpoint, &each.checkpoint->files().Get(slice.file)},
                        slice.offset,
                        slice.encoding,
                        Volume(box),
                        false,
                        slice.has_checksum,
                        slice.masked_checksum,
                        writer->Allocate(slice.size),
                        [&catalog, &tensor, &slice] { return Describe(catalog, tensor, slice); }});
    }
  }
  writer->Copy(copies, progress);
  for (size_t i = 0; i < infos.size(); ++i) {
    writer->Record(infos[i], copies[i].to, copies[i].masked_checksum);
  }
}

}  // namespace tensorbundle
