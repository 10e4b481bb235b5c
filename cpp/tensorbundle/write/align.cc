// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/align.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/table/table_builder.h"

namespace tensorbundle {

struct SliceCopyOptions {
  bool big_endian = false;
  int threads = 1;
  std::function<std::string(const PlacedSlice&)> name_of;  // the name of a slice in messages
  std::function<void(uint64_t)> progress;  // called from any thread; may throw to stop
};

namespace {

// ---- Placement.

constexpr auto kMaxFileSize = static_cast<uint64_t>(INT64_MAX);

auto OrderOf(const PlacedSlice& slice) {
  return std::tie(slice.shard, slice.offset, slice.size, slice.encoding, slice.num_elements,
                  slice.masked_checksum, slice.has_checksum, slice.record);
}

PlacedSlice SliceOf(const BundleEntry& entry, size_t record) {
  PlacedSlice slice;
  slice.record = record;
  slice.shard = entry.shard;
  slice.offset = static_cast<uint64_t>(entry.offset);
  slice.size = static_cast<uint64_t>(entry.size);
  slice.num_elements = *CheckedVolume(entry.dims);
  slice.masked_checksum = entry.masked_checksum;
  slice.has_checksum = entry.has_checksum;
  slice.encoding = EncodingOf(static_cast<DataType>(entry.dtype));
  return slice;
}

bool IsPossible(const BundleEntry& entry, const BundleHeader& header) {
  return entry.shard >= 0 && entry.shard < header.num_shards && entry.offset >= 0 &&
         entry.size >= 0 && entry.size <= INT64_MAX - entry.offset && CheckedVolume(entry.dims);
}

// The multiple of `alignment`, a power of two, at or after `position`. Neither exceeds INT64_MAX.
uint64_t RoundUp(uint64_t position, uint64_t alignment) {
  return (position + alignment - 1) & ~(alignment - 1);
}

// Whether two neighbours in the order of PlaceSlices are the same bytes, to be verified in the same
// way. They are copied once.
bool IsDuplicate(const PlacedSlice& slice, const PlacedSlice* before) {
  if (before == nullptr) return false;
  PlacedSlice same = *before;
  same.record = slice.record;
  return OrderOf(slice) == OrderOf(same);
}

// Returns all stored slices, by shard and offset, also those that no tensor lists. Slices keep
// their order in each shard. `entries` are those of an index that ReadBundleIndex accepts. Throws:
// CorruptionError if a record is impossible or a shard would exceed kMaxFileSize.
std::vector<PlacedSlice> PlaceSlices(const TableEntries& entries, const BundleHeader& header,
                                     uint64_t alignment, const std::string& path) {
  std::vector<PlacedSlice> slices;
  slices.reserve(entries.size());
  BundleEntry entry;
  for (size_t i = 1; i < entries.size(); ++i) {
    if (!DecodeBundleEntry(entries.value(i), &entry) ||
        (entry.num_slices == 0 && !IsPossible(entry, header))) {
      throw CorruptionError(path + ": the record " + EscapeBytes(entries.key(i)) +
                            " is impossible");
    }
    if (entry.num_slices == 0) slices.push_back(SliceOf(entry, i));
  }
  std::sort(slices.begin(), slices.end(),
            [](const PlacedSlice& a, const PlacedSlice& b) { return OrderOf(a) < OrderOf(b); });
  uint64_t end = 0;
  const PlacedSlice* before = nullptr;
  for (PlacedSlice& slice : slices) {
    if (before == nullptr || before->shard != slice.shard) end = 0;
    if (IsDuplicate(slice, before)) {
      slice.new_offset = before->new_offset;
    } else if (slice.size > 0) {  // an empty slice gets offset 0, which is inside every file
      slice.new_offset = RoundUp(end, slice.size >= kLargeSlice ? alignment : kSmallAlignment);
      if (!RangeFits(slice.new_offset, slice.size, kMaxFileSize)) {
        throw CorruptionError(path + ": the record " + EscapeBytes(entries.key(slice.record)) +
                              " and those before it would need a file of more than " +
                              std::to_string(kMaxFileSize) + " bytes");
      }
      end = slice.new_offset + slice.size;
    }
    before = &slice;
  }
  return slices;
}

// ---- Copying the slices of a shard.

// Bounds the memory of a copy: each thread has one chunk.
constexpr int kMaxThreads = 32;
// Tasks that are copied before their checksums are compared: few enough to detect corruption soon,
// enough to make the cost of starting threads negligible.
constexpr size_t kMaxBatch = 256;

// A range of a slice that one thread copies.
struct CopyTask {
  const PlacedSlice* slice;
  uint64_t start;  // in the slice
  uint64_t size;
  std::optional<uint32_t> checksum{};
};

class ShardCopier {
 public:
  ShardCopier(const File& source, const AtomicFile& out, const SliceCopyOptions& options)
      : source_(source), out_(out), options_(options) {}

  void Add(const PlacedSlice& slice) {
    if (slice.encoding != Encoding::kDense || slice.size == 0) {
      AddTask({&slice, 0, slice.size});  // StreamingElements needs all bytes in order
      return;
    }
    for (uint64_t start = 0; start < slice.size; start += kReadChunkSize) {
      AddTask({&slice, start, std::min(kReadChunkSize, slice.size - start)});
    }
  }

  // Copies the slices that were added since the last call.
  void Flush() {
    ParallelFor(batch_.size(), std::min(options_.threads, kMaxThreads),
                [&](size_t i) { Copy(&batch_[i]); });
    for (const CopyTask& task : batch_) VerifyChecksum(task);
    batch_.clear();
    out_.StartWriteback();
  }

 private:
  void AddTask(const CopyTask& task) {
    batch_.push_back(task);
    if (batch_.size() == kMaxBatch) Flush();
  }

  void Copy(CopyTask* task) const {
    const PlacedSlice& slice = *task->slice;
    const uint64_t chunk = std::min(kReadChunkSize, task->size);
    const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(chunk);
    const auto read = [&](uint64_t at, uint64_t size) {
      const MutableByteSpan bytes(buffer.get(), size);
      source_.ReadAt(slice.offset + at, bytes);
      out_.WriteAt(slice.new_offset + at, bytes);
      options_.progress(size);
      return ByteSpan(bytes);
    };
    if (slice.encoding == Encoding::kDense) {
      const ByteSpan bytes = read(task->start, task->size);
      task->checksum = crc32c::Value(bytes.data(), bytes.size());
      return;
    }
    StreamingElements elements(slice.encoding, slice.num_elements, options_.big_endian);
    for (uint64_t at = 0; at < slice.size; at += chunk) {
      elements.Extend(read(at, std::min(chunk, slice.size - at)));
    }
    task->checksum = elements.Value();
  }

  // Combines the checksum of a task with those of the tasks before it. Compares the checksum of the
  // slice after its last task.
  void VerifyChecksum(const CopyTask& task) {
    const PlacedSlice& slice = *task.slice;
    if (!task.checksum) Throw(slice, "its elements are malformed, or a checksum in them differs");
    if (task.start == 0) checksum_ = 0;
    checksum_ = crc32c::Combine(checksum_, *task.checksum, task.size);
    if (task.start + task.size < slice.size) return;
    if (!slice.has_checksum) Throw(slice, "the index stores no checksum to verify it with");
    const uint32_t expected = crc32c::Unmask(slice.masked_checksum);
    if (checksum_ != expected) {
      Throw(slice, "the stored CRC32C is " + std::to_string(expected) + ", the bytes give " +
                       std::to_string(checksum_));
    }
  }

  [[noreturn]] void Throw(const PlacedSlice& slice, const std::string& what) const {
    throw CorruptionError(source_.path() + ": " + options_.name_of(slice) + " at offset " +
                          std::to_string(slice.offset) + ", " + std::to_string(slice.size) +
                          " bytes: " + what);
  }

  const File& source_;
  const AtomicFile& out_;
  const SliceCopyOptions& options_;
  std::vector<CopyTask> batch_;
  uint32_t checksum_ = 0;  // of the current slice, up to the current task
};

// Throws CorruptionError unless all slices are inside `source`.
void CheckInside(const File& source, std::span<const PlacedSlice> slices,
                 const SliceCopyOptions& options) {
  for (const PlacedSlice& slice : slices) {
    if (RangeFits(slice.offset, slice.size, source.size())) continue;
    throw CorruptionError(source.path() + " has " + std::to_string(source.size()) + " bytes, but " +
                          options.name_of(slice) + " takes " + std::to_string(slice.size) +
                          " at offset " + std::to_string(slice.offset) +
                          "; was the file truncated?");
  }
}

// Copies the slices to their new offsets in `out`. Reads every byte once.
// Requires: the slices are inside `source`, and `out` has its final size.
// Throws: CorruptionError if a slice does not have the checksum in its record, or if the record has
// no checksum; IOFailure.
void CopySlices(const File& source, std::span<const PlacedSlice> slices, const AtomicFile& out,
                const SliceCopyOptions& options) {
  ShardCopier copier(source, out, options);
  const PlacedSlice* before = nullptr;
  for (const PlacedSlice& slice : slices) {
    if (!IsDuplicate(slice, before)) copier.Add(slice);
    before = &slice;
  }
  copier.Flush();
}

// ---- The plan.

void CheckAlignment(uint64_t alignment) {
  const bool in_range = alignment >= kSmallAlignment && alignment <= kMaxAlignment;
  if (std::has_single_bit(alignment) && in_range) return;
  throw std::invalid_argument("the alignment must be a power of two from " +
                              std::to_string(kSmallAlignment) + " to " +
                              std::to_string(kMaxAlignment) + ", not " + std::to_string(alignment));
}

std::vector<std::span<const PlacedSlice>> ByShard(std::span<const PlacedSlice> slices) {
  std::vector<std::span<const PlacedSlice>> shards;
  while (!slices.empty()) {
    size_t count = 1;
    while (count < slices.size() && slices[count].shard == slices.front().shard) ++count;
    shards.push_back(slices.first(count));
    slices = slices.subspan(count);
  }
  return shards;
}

// Returns the size of the new shard.
uint64_t NewSize(std::span<const PlacedSlice> shard) {
  uint64_t size = 0;
  for (const PlacedSlice& slice : shard) size = std::max(size, slice.new_offset + slice.size);
  return size;
}

// Returns the number of bytes to copy. Duplicates count once.
uint64_t BytesToCopy(std::span<const PlacedSlice> shard) {
  uint64_t size = 0;
  const PlacedSlice* before = nullptr;
  for (const PlacedSlice& slice : shard) {
    if (!IsDuplicate(slice, before)) size += slice.size;
    before = &slice;
  }
  return size;
}

// Throws UnsupportedError if the slices of a shard overlap so much that the new shard is larger:
// overlapping slices are written separately, so a small file could fill the disk.
void CheckOverlaps(const File& source, std::span<const PlacedSlice> shard) {
  const uint64_t size = BytesToCopy(shard);
  if (size <= source.size()) return;
  throw UnsupportedError(source.path() + " has " + std::to_string(source.size()) +
                         " bytes, but its tensors take " + std::to_string(size) +
                         " in all, because they overlap; such a checkpoint is not aligned");
}

// Returns the status of a path without following links, or nothing if it does not exist.
std::optional<struct stat> LinkStatus(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return status;
}

bool AreSameFile(const std::string& a, const std::string& b) {
  struct stat at_a{};
  struct stat at_b{};
  return ::stat(a.c_str(), &at_a) == 0 && ::stat(b.c_str(), &at_b) == 0 &&
         at_a.st_dev == at_b.st_dev && at_a.st_ino == at_b.st_ino;
}

[[noreturn]] void ThrowExists(const std::string& path) {
  throw IOFailure("will not replace " + path + "; remove it or choose another name", path, EEXIST);
}

}  // namespace

AlignPlan::AlignPlan(std::string source, uint64_t alignment) : source_(std::move(source)) {
  CheckAlignment(alignment);
  // Reads the index once, so that the plan and the copy are of the same save.
  const auto index = std::make_shared<MemorySource>(*OpenIndexFile(source_));
  index_path_ = index->path();
  catalog_ = ReadBundleIndex(source_, index).catalog;
  entries_ = TableEntries::ReadAll(Table::Open(index));
  header_ = DecodeBundleHeader(entries_.value(0), index_path_);
  slices_ = PlaceSlices(entries_, header_, alignment, index_path_);
  shards_ = ByShard(slices_);
  for (const Shard& shard : shards_) bytes_to_copy_ += BytesToCopy(shard);
}

AlignSummary AlignPlan::Write(const std::string& destination, int threads,
                              const std::function<void(uint64_t)>& progress) const {
  const SliceCopyOptions options{header_.big_endian, threads,
                                 [this](const PlacedSlice& slice) { return NameOf(slice); },
                                 progress};
  AlignSummary summary{.slices = slices_.size()};
  CheckDestination(destination);
  for (const Shard& shard : shards_) {  // all shards before the first copy
    const std::shared_ptr<const File> file = OpenShard(shard);
    CheckInside(*file, shard, options);
    CheckOverlaps(*file, shard);
    summary.bytes_before += file->size();
    summary.bytes_after += NewSize(shard);
  }
  for (const PlacedSlice& slice : slices_) {
    summary.moved += slice.size > 0 && slice.offset != slice.new_offset;
  }

  // Destroyed in reverse order: the index is removed first, the directory last.
  const std::unique_ptr<AtomicDirectory> directory = AtomicDirectory::For(destination);
  std::vector<std::unique_ptr<AtomicFile>> files;
  for (const Shard& shard : shards_) files.push_back(CopyShard(shard, destination, options));
  const std::unique_ptr<AtomicFile> index = WriteIndex(destination);

  for (const std::unique_ptr<AtomicFile>& file : files) file->Publish();
  directory->Sync();
  index->Publish();
  directory->Sync();
  index->Keep();
  for (const std::unique_ptr<AtomicFile>& file : files) file->Keep();
  directory->Keep();
  return summary;
}

std::unique_ptr<AtomicFile> AlignPlan::CopyShard(const Shard& shard, const std::string& destination,
                                                 const SliceCopyOptions& options) const {
  const std::shared_ptr<const File> source = OpenShard(shard);
  CheckInside(*source, shard, options);
  std::unique_ptr<AtomicFile> file =
      AtomicFile::Create(ShardPath(destination, shard.front().shard));
  file->Resize(NewSize(shard));
  CopySlices(*source, shard, *file, options);
  file->Finish();
  return file;
}

std::unique_ptr<AtomicFile> AlignPlan::WriteIndex(const std::string& destination) const {
  std::vector<const PlacedSlice*> slice_of(entries_.size());
  for (const PlacedSlice& slice : slices_) slice_of[slice.record] = &slice;
  TableBuilder table;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (slice_of[i] == nullptr) {
      table.Add(entries_.key(i), AsText(entries_.value(i)));
    } else {
      table.Add(entries_.key(i), WithOffset(entries_.value(i), slice_of[i]->new_offset));
    }
  }
  std::unique_ptr<AtomicFile> file = AtomicFile::Create(destination + ".index");
  file->WriteAt(0, AsBytes(table.Finish()));
  file->Finish();
  return file;
}

// Returns the name of a slice as in other messages. Slow: only for errors.
std::string AlignPlan::NameOf(const PlacedSlice& wanted) const {
  const std::string file = ShardPath(source_, wanted.shard);
  for (const Tensor& tensor : catalog_.tensors) {
    for (const StoredSlice& slice : catalog_.Slices(tensor)) {
      if (slice.offset == wanted.offset && slice.size == wanted.size &&
          slice.masked_checksum == wanted.masked_checksum && catalog_.files[slice.file] == file) {
        return Describe(catalog_, tensor, slice);
      }
    }
  }
  return "the slice record " + EscapeBytes(entries_.key(wanted.record)) +
         ", which no tensor lists,";
}

std::shared_ptr<const File> AlignPlan::OpenShard(const Shard& shard) const {
  const std::string path = ShardPath(source_, shard.front().shard);
  try {
    std::shared_ptr<const File> file = File::Open(path);
    uint64_t end = 0;
    for (const PlacedSlice& slice : shard) end = std::max(end, slice.offset + slice.size);
    const FileDiagnosis diagnosis = Diagnose(*file, end);
    if (diagnosis.is_certain) {
      throw CorruptionError(NameOf(shard.front()) + ": " +
                            DescribeFileError(*file, diagnosis.error, end));
    }
    return file;
  } catch (const CheckpointNotFoundError&) {
    throw CheckpointNotFoundError(NameOf(shard.front()) + ": the data shard " + path +
                                      " is missing; was the checkpoint copied in part?",
                                  path);
  }
}

std::string AlignPlan::ShardPath(const std::string& prefix, int32_t shard) const {
  return DataFilePath(prefix, shard, header_.num_shards);
}

// Throws if a file exists that would be written, or a V1 checkpoint of that name.
void AlignPlan::CheckDestination(const std::string& destination) const {
  const std::string index = destination + ".index";
  if (AreSameFile(index, index_path_)) {
    throw std::invalid_argument("the destination " + destination +
                                " is the source: an aligned checkpoint needs a name of its own");
  }
  if (LinkStatus(index)) ThrowExists(index);
  const std::optional<struct stat> namesake = LinkStatus(destination);
  if (namesake && S_ISREG(namesake->st_mode)) ThrowExists(destination);
  for (const Shard& shard : shards_) {
    const std::string path = ShardPath(destination, shard.front().shard);
    if (LinkStatus(path)) ThrowExists(path);
  }
}

}  // namespace tensorbundle
