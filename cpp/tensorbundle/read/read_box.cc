// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_box.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/io/uffd_buffer.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_plan.h"
#include "tensorbundle/read/slice_cover.h"

namespace tensorbundle {
namespace {

// Whether the reader compares checksums, or returns them to its caller.
enum class ChecksumUse { kCompare, kReturn };

// Checks what can be checked before a read. Returns whether there is anything to read.
bool CheckRequest(const Checkpoint& checkpoint, const Tensor& tensor, const DataTypeInfo& info,
                  const Box& box, ByteSpan out) {
  if (out.size() != Volume(box) * info.item_size) {
    throw std::invalid_argument("the destination has " + std::to_string(out.size()) +
                                " bytes, the box " + ToString(box) + " needs " +
                                std::to_string(Volume(box) * info.item_size));
  }
  if (tensor.num_elements == 0) {  // nothing to read, but a missing shard is still missing
    for (const StoredSlice& slice : checkpoint.catalog().Slices(tensor)) {
      checkpoint.CheckSlice(tensor, slice, Compared::kNo);
    }
  }
  return !out.empty();
}

// Returns null if the memory is not filled span by span, or userfaultfd is not available.
std::unique_ptr<UffdBuffer> MakeUffdBuffer(const StoredSlice& slice, const CopyLayout& layout,
                                           MutableByteSpan out) {
  if (slice.encoding != Encoding::kDense || layout.count() != 1) return nullptr;
  if (layout.span_size() < UffdBuffer::kMinSize) return nullptr;
  auto uffd =
      std::make_unique<UffdBuffer>(out.subspan(layout.first().destination, layout.span_size()));
  return uffd->is_enabled() ? std::move(uffd) : nullptr;
}

// A box that needs no plan: few contiguous bytes of one stored slice. A plan takes longer than such
// a read.
struct SmallRead {
  const StoredSlice* slice;
  uint64_t offset;  // of the box in the slice
};

// Recognizes rows, or the whole, of a tensor that is stored as one slice.
std::optional<SmallRead> FindSmallRead(const Catalog& catalog, const Tensor& tensor, const Box& box,
                                       uint64_t size) {
  constexpr uint64_t kSmall = uint64_t{64} << 10;
  if (size > kSmall || tensor.num_slices != 1) return std::nullopt;
  const StoredSlice& slice = catalog.Slices(tensor)[0];
  if (slice.first_extent != StoredSlice::kWholeTensor || slice.encoding != Encoding::kDense) {
    return std::nullopt;
  }
  if (size == slice.size) return SmallRead{&slice, 0};
  const std::span<const int64_t> shape = catalog.Shape(tensor);
  for (size_t axis = 1; axis < box.size(); ++axis) {
    if (box[axis].length != shape[axis]) return std::nullopt;
  }
  const uint64_t row_size = slice.size / static_cast<uint64_t>(shape[0]);
  return SmallRead{&slice, static_cast<uint64_t>(box[0].start) * row_size};
}

// `read_bytes` fills its argument with the stored bytes.
template <typename ReadBytes>
void ReadSmall(const Checkpoint& checkpoint, const Tensor& tensor, const DataTypeInfo& info,
               const SmallRead& read, MutableByteSpan out, const ReadOptions& options,
               const ReadBytes& read_bytes) {
  const StoredSlice& slice = *read.slice;
  const bool verifies = options.verify && out.size() == slice.size;
  if (verifies) {
    checkpoint.CheckSlice(tensor, slice, Compared::kYes);
  } else {
    RequireReadable(checkpoint, tensor, slice);
  }
  const bool has_checksum = verifies && StartVerify(checkpoint, tensor, slice, Delivery::kWhole);
  read_bytes(out);
  const uint32_t crc = has_checksum ? crc32c::Value(out.data(), out.size()) : 0;
  SwapBytes(out, checkpoint.catalog().big_endian ? info.swap_size : 1);
  if (has_checksum) FinishVerify(checkpoint, tensor, slice, crc);
}

ReadPlan PlanRead(const Checkpoint& checkpoint, const Tensor& tensor, const DataTypeInfo& info,
                  const Box& box, MutableByteSpan out, const ReadOptions& options,
                  ChecksumUse use) {
  ReadPlan plan(checkpoint, tensor, info, out);
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), tensor, box)) {
    const StoredSlice& slice = *overlap.slice;
    const bool verifies = options.verify && (overlap.is_whole_slice() || options.verify_partial);
    if (verifies || use == ChecksumUse::kReturn) {
      checkpoint.CheckSlice(tensor, slice, Compared::kYes);
    } else {
      RequireReadable(checkpoint, tensor, slice);
    }
    SliceRead read{&slice,
                   CopyLayout(overlap.slice_box, box, overlap.intersection, info.item_size)};
    const bool again = options.verify_again && HasChecksumOfBytes(checkpoint, slice);
    read.has_checksum =
        verifies && (again || StartVerify(checkpoint, tensor, slice, Delivery::kWhole));
    if (use == ChecksumUse::kReturn) {
      read.has_checksum =
          HasChecksumOfBytes(checkpoint, slice) && read.layout.has_contiguous_source();
    }
    if (slice.encoding != Encoding::kRecord) read.file = &checkpoint.files().Get(slice.file);
    if (read.file != nullptr) read.chunk_size = ChunkSizeOf(*read.file);
    read.scans_slice =
        use == ChecksumUse::kCompare && read.has_checksum && !overlap.is_whole_slice();
    if (options.fresh) read.uffd = MakeUffdBuffer(slice, read.layout, out);
    plan.Add(std::move(read));
  }
  return plan;
}

void FinishReads(const Checkpoint& checkpoint, const Tensor& tensor, const ReadPlan& plan) {
  for (const SliceRead& read : plan.reads()) {
    if (read.has_checksum) FinishVerify(checkpoint, tensor, *read.slice, plan.Checksum(read));
  }
}

// Plans the read of a box and executes it.
ReadPlan ReadSlices(const Checkpoint& checkpoint, const Tensor& tensor, const DataTypeInfo& info,
                    const Box& box, MutableByteSpan out, const ReadOptions& options,
                    ChecksumUse use) {
  ReadPlan plan = PlanRead(checkpoint, tensor, info, box, out, options, use);
  ParallelFor(plan.num_tasks(), options.threads, [&](size_t task) { plan.Run(task); });
  return plan;
}

// Small tensors that one request reads, because they are close together in a file.
struct ReadGroup {
  const File* file = nullptr;
  uint64_t begin = 0;  // offsets in the file
  uint64_t end = 0;
  std::vector<std::pair<const TensorRead*, SmallRead>> reads{};
};

// Adds a read to the last group if it is close enough, else to a new group. Returns false if the
// tensor is not small, or its file is not read by requests.
bool AddToGroups(const Checkpoint& checkpoint, const TensorRead& read,
                 std::vector<ReadGroup>* groups) {
  // Fewer bytes than a request may have: several requests are made at a time.
  constexpr uint64_t kMaxGroupSize = kMaxRequestSize / 4;
  const Catalog& catalog = checkpoint.catalog();
  if (!checkpoint.files().has_opener() || read.out.empty()) return false;
  const Box box = WholeBox(catalog.Shape(*read.tensor));
  const auto small = FindSmallRead(catalog, *read.tensor, box, read.out.size());
  if (!small) return false;
  const StoredSlice& slice = *small->slice;
  checkpoint.CheckSlice(*read.tensor, slice, Compared::kYes);
  const File& file = checkpoint.files().Get(slice.file);
  if (file.mode() != ReadMode::kRequests) return false;
  const uint64_t end = slice.offset + slice.size;
  if (!groups->empty()) {
    ReadGroup& last = groups->back();
    if (last.file == &file && slice.offset <= last.end + kMaxRequestGap &&
        std::max(end, last.end) - last.begin <= kMaxGroupSize) {
      last.end = std::max(end, last.end);
      last.reads.emplace_back(&read, *small);
      return true;
    }
  }
  groups->push_back({&file, slice.offset, end});
  groups->back().reads.emplace_back(&read, *small);
  return true;
}

void ReadTogether(const Checkpoint& checkpoint, const ReadGroup& group,
                  const ReadOptions& options) {
  const uint64_t size = group.end - group.begin;
  const auto bytes = std::make_unique_for_overwrite<uint8_t[]>(size);
  group.file->ReadAt(group.begin, {bytes.get(), size});
  for (const auto& [read, small] : group.reads) {
    const uint8_t* stored = bytes.get() + (small.slice->offset - group.begin);
    ReadSmall(checkpoint, *read->tensor, RequireFixedSize(*read->tensor), small, read->out, options,
              [&](MutableByteSpan out) { std::memcpy(out.data(), stored, out.size()); });
  }
}

}  // namespace

const DataTypeInfo& RequireKnownType(const Tensor& tensor) {
  const DataTypeInfo* info = FindDataType(tensor.dtype);
  if (info != nullptr) return *info;
  throw UnsupportedError("tensor " + EscapeBytes(tensor.name) + " has type " +
                         DataTypeName(tensor.dtype) +
                         ", which this version of tensorbundle does not know");
}

const DataTypeInfo& RequireFixedSize(const Tensor& tensor) {
  const DataTypeInfo& info = RequireKnownType(tensor);
  if (info.item_size > 0) return info;
  throw UnsupportedError("tensor " + EscapeBytes(tensor.name) + " of type " + info.name +
                         " has no fixed element size");
}

void RequireBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box) {
  RequireKnownType(tensor);
  if (Volume(box) == 0) return;
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), tensor, box)) {
    checkpoint.CheckSlice(tensor, *overlap.slice, Compared::kYes);
  }
}

void ReadBox(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box,
             MutableByteSpan out, const ReadOptions& options) {
  const DataTypeInfo& info = RequireFixedSize(tensor);
  if (!CheckRequest(checkpoint, tensor, info, box, out)) return;
  if (!options.verify_partial) {
    if (const auto small = FindSmallRead(checkpoint.catalog(), tensor, box, out.size())) {
      return ReadSmall(checkpoint, tensor, info, *small, out, options, [&](MutableByteSpan bytes) {
        checkpoint.files()
            .Get(small->slice->file)
            .ReadAt(small->slice->offset + small->offset, bytes);
      });
    }
  }
  FinishReads(checkpoint, tensor,
              ReadSlices(checkpoint, tensor, info, box, out, options, ChecksumUse::kCompare));
}

void ReadTensors(const Checkpoint& checkpoint, std::span<const TensorRead> reads,
                 const ReadOptions& options) {
  const Catalog& catalog = checkpoint.catalog();
  std::vector<TensorRead> in_file_order(reads.begin(), reads.end());
  std::sort(in_file_order.begin(), in_file_order.end(),
            [&](const TensorRead& a, const TensorRead& b) {
              return catalog.FilePosition(*a.tensor) < catalog.FilePosition(*b.tensor);
            });

  // A task reads a tensor of up to one chunk, or a group of them, or is a task of a larger tensor's
  // plan.
  struct Task {
    const TensorRead* read;  // null for a group
    size_t plan;
    size_t index;
  };
  constexpr size_t kNoPlan = SIZE_MAX;
  struct PlannedRead {
    const Tensor* tensor;
    ReadPlan plan;
  };
  std::vector<PlannedRead> planned;
  std::vector<Task> tasks;
  std::vector<ReadGroup> groups;
  for (const TensorRead& read : in_file_order) {
    if (AddToGroups(checkpoint, read, &groups)) continue;
    if (read.out.size() <= kReadChunkSize) {
      tasks.push_back({&read, kNoPlan, 0});
      continue;
    }
    const DataTypeInfo& info = RequireFixedSize(*read.tensor);
    const Box box = WholeBox(catalog.Shape(*read.tensor));
    CheckRequest(checkpoint, *read.tensor, info, box, read.out);
    planned.push_back({read.tensor, PlanRead(checkpoint, *read.tensor, info, box, read.out, options,
                                             ChecksumUse::kCompare)});
    for (size_t i = 0; i < planned.back().plan.num_tasks(); ++i) {
      tasks.push_back({&read, planned.size() - 1, i});
    }
  }
  for (size_t i = 0; i < groups.size(); ++i) tasks.push_back({nullptr, kNoPlan, i});
  // A thread takes as long to start as a read of kMinPerThread bytes; a small tensor takes as long
  // as a page.
  constexpr uint64_t kMinPerThread = uint64_t{1} << 20;
  constexpr uint64_t kPage = 4096;
  uint64_t work = 0;
  for (const TensorRead& read : reads) work += kPage + read.out.size();
  if (!groups.empty()) work = std::max(work, groups.size() * kMinPerThread);  // requests wait
  const int threads = static_cast<int>(std::clamp<uint64_t>(
      work / kMinPerThread, 1, static_cast<uint64_t>(std::max(options.threads, 1))));
  ReadOptions alone = options;
  alone.threads = 1;
  ParallelFor(tasks.size(), threads, [&](size_t i) {
    const Task& task = tasks[i];
    if (task.read == nullptr) return ReadTogether(checkpoint, groups[task.index], alone);
    if (task.plan != kNoPlan) return planned[task.plan].plan.Run(task.index);
    ReadBox(checkpoint, *task.read->tensor, WholeBox(catalog.Shape(*task.read->tensor)),
            task.read->out, alone);
  });
  for (const PlannedRead& each : planned) FinishReads(checkpoint, *each.tensor, each.plan);
}

std::vector<PartialChecksum> ReadBoxWithChecksums(const Checkpoint& checkpoint,
                                                  const Tensor& tensor, const Box& box,
                                                  MutableByteSpan out, const ReadOptions& options) {
  const DataTypeInfo& info = RequireFixedSize(tensor);
  if (!CheckRequest(checkpoint, tensor, info, box, out)) return {};
  const ReadPlan plan =
      ReadSlices(checkpoint, tensor, info, box, out, options, ChecksumUse::kReturn);
  const StoredSlice* first = checkpoint.catalog().Slices(tensor).data();
  std::vector<PartialChecksum> partial;
  for (const SliceRead& read : plan.reads()) {
    PartialChecksum checksum{.slice = static_cast<uint64_t>(read.slice - first)};
    if (read.has_checksum) {
      checksum.offset = read.layout.first().source;
      checksum.size = read.layout.size();
      checksum.crc = plan.Checksum(read);
    }
    partial.push_back(checksum);
  }
  return partial;
}

}  // namespace tensorbundle
