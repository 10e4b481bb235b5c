// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_box.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
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

// Plans the read of a box and executes it.
ReadPlan ReadSlices(const Checkpoint& checkpoint, const Tensor& tensor, const DataTypeInfo& info,
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
    read.has_checksum = verifies && StartVerify(checkpoint, tensor, slice, Delivery::kWhole);
    if (use == ChecksumUse::kReturn) {
      read.has_checksum =
          HasChecksumOfBytes(checkpoint, slice) && read.layout.has_contiguous_source();
    }
    if (slice.encoding != Encoding::kRecord) read.file = &checkpoint.files().Get(slice.file);
    if (read.file != nullptr && read.file->mode() == ReadMode::kRanges) {
      read.chunk_size = kMaxRangeSize;
    }
    read.scans_slice =
        use == ChecksumUse::kCompare && read.has_checksum && !overlap.is_whole_slice();
    if (options.fresh) read.uffd = MakeUffdBuffer(slice, read.layout, out);
    plan.Add(std::move(read));
  }
  ParallelFor(plan.num_tasks(), options.threads, [&](size_t task) { plan.Run(task); });
  return plan;
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
  const ReadPlan plan =
      ReadSlices(checkpoint, tensor, info, box, out, options, ChecksumUse::kCompare);
  for (const SliceRead& read : plan.reads()) {
    if (read.has_checksum) {
      FinishVerify(checkpoint, tensor, *read.slice, plan.Checksum(read));
    }
  }
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
