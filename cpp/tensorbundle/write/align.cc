// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/align.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/io/byte_source.h"

namespace tensorbundle {
namespace {

// ---- Placement.

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
      slice.new_offset = AlignedOffset(end, slice.size, alignment);
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

// Throws CorruptionError unless all slices are inside `source`.
void CheckInside(const File& source, std::span<const PlacedSlice> slices,
                 const std::function<std::string(const PlacedSlice&)>& name_of) {
  for (const PlacedSlice& slice : slices) {
    if (RangeFits(slice.offset, slice.size, source.size())) continue;
    throw CorruptionError(source.path() + " has " + std::to_string(source.size()) + " bytes, but " +
                          name_of(slice) + " takes " + std::to_string(slice.size) + " at offset " +
                          std::to_string(slice.offset) + "; was the file truncated?");
  }
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

bool AreSameFile(const std::string& a, const std::string& b) {
  struct stat at_a{};
  struct stat at_b{};
  return ::stat(a.c_str(), &at_a) == 0 && ::stat(b.c_str(), &at_b) == 0 &&
         at_a.st_dev == at_b.st_dev && at_a.st_ino == at_b.st_ino;
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
  AlignSummary summary{.slices = slices_.size()};
  if (AreSameFile(destination + ".index", index_path_)) {
    throw std::invalid_argument("the destination " + destination +
                                " is the source: an aligned checkpoint needs a name of its own");
  }
  for (const Shard& shard : shards_) {  // all shards before the first copy
    const std::shared_ptr<const File> file = OpenShard(shard);
    CheckInside(*file, shard, [this](const PlacedSlice& slice) { return NameOf(slice); });
    CheckOverlaps(*file, shard);
    summary.bytes_before += file->size();
    summary.bytes_after += NewSize(shard);
  }
  for (const PlacedSlice& slice : slices_) {
    summary.moved += slice.size > 0 && slice.offset != slice.new_offset;
  }

  BundleWriter writer(destination, {.num_shards = header_.num_shards, .threads = threads});
  for (const Shard& shard : shards_) {
    writer.CreateDataFile(shard.front().shard, NewSize(shard));
    CopyShard(shard, &writer, progress);
  }
  PutRecords(&writer);
  writer.Publish();
  return summary;
}

void AlignPlan::CopyShard(const Shard& shard, BundleWriter* writer,
                          const WriteProgress& progress) const {
  const std::shared_ptr<const File> source = OpenShard(shard);
  CheckInside(*source, shard, [this](const PlacedSlice& slice) { return NameOf(slice); });
  const OutputFile& to = writer->DataFile(shard.front().shard);
  std::vector<SliceCopy> copies;
  const PlacedSlice* before = nullptr;
  for (const PlacedSlice& slice : shard) {
    if (!IsDuplicate(slice, before)) {
      copies.push_back({
          .source = source,
          .offset = slice.offset,
          .size = slice.size,
          .encoding = slice.encoding,
          .num_elements = slice.num_elements,
          .big_endian = header_.big_endian,
          .has_checksum = slice.has_checksum,
          .masked_checksum = slice.masked_checksum,
          .describe = [this, &slice] { return NameOf(slice); },
          .to = &to,
          .to_offset = slice.new_offset,
      });
    }
    before = &slice;
  }
  CopySlices(copies, writer->threads(), progress);
  writer->FinishDataFile(shard.front().shard);
}

void AlignPlan::PutRecords(BundleWriter* writer) const {
  std::vector<const PlacedSlice*> slice_of(entries_.size());
  for (const PlacedSlice& slice : slices_) slice_of[slice.record] = &slice;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const std::string_view record = AsText(entries_.value(i));
    writer->PutRecord(std::string(entries_.key(i)),
                      slice_of[i] == nullptr
                          ? std::string(record)
                          : WithOffset(entries_.value(i), slice_of[i]->new_offset));
  }
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

}  // namespace tensorbundle
