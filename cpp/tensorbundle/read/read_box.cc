// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_box.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>

#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/io/uffd_buffer.h"
#include "tensorbundle/read/bounce_buffer.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

// Runs that lie closer than this are read together with what is between them: those bytes are on
// pages that the runs touch anyway, and a system call costs as much as copying them.
constexpr uint64_t kMaxGap = 4096;

// Runs far apart are handed out in this many tasks at most, so that the plan stays small beside the
// data.
constexpr uint64_t kMaxTasks = 65536;

// The part of one slice that a box needs.
struct Job {
  const StoredSlice* slice;
  CopyLayout layout;
  bool checksum;                      // compute one while reading: the runs have no gaps
  std::unique_ptr<UffdBuffer> fresh;  // of the memory that it fills, if that pays
  std::vector<uint32_t> task_crcs{};  // of this job's tasks, in order
  std::vector<uint64_t> task_sizes{};
};

// What one thread does at a time: some runs, or some bytes of one long run.
struct Task {
  size_t job;
  size_t ordinal;  // among the job's tasks
  uint64_t first_run;
  uint64_t num_runs;
  uint64_t begin;  // within the run, when num_runs is 1
  uint64_t size;
};

class BoxReader {
 public:
  BoxReader(const Checkpoint& checkpoint, const Tensor& tensor, const DataTypeInfo& info,
            MutableByteSpan out, const ReadOptions& options)
      : checkpoint_(checkpoint), tensor_(tensor), info_(info), out_(out), options_(options) {}

  // Compares the checksums of slices that are read whole, where that was asked for.
  void Read(const Box& box) {
    Plan(box, /*in_parts=*/false);
    RunTasks();
    for (const Job& job : jobs_) {
      if (!job.checksum) continue;
      CheckChecksum(checkpoint_, tensor_, *job.slice, Checksum(job));
      checkpoint_.SetVerified(*job.slice);
    }
  }

  std::vector<PartialChecksum> ReadInParts(const Box& box) {
    Plan(box, /*in_parts=*/true);
    RunTasks();
    const StoredSlice* first = checkpoint_.catalog().Slices(tensor_).data();
    std::vector<PartialChecksum> parts;
    for (const Job& job : jobs_) {
      PartialChecksum part;
      part.slice = static_cast<uint64_t>(job.slice - first);
      if (job.checksum) {
        part.offset = job.layout.first().source;
        part.size = job.layout.span_size() * job.layout.count();
        part.crc = Checksum(job);
      }
      parts.push_back(part);
    }
    return parts;
  }

 private:
  void RunTasks() {
    ParallelFor(tasks_.size(), options_.threads, [this](size_t i) { Run(tasks_[i]); });
  }

  void Plan(const Box& box, bool in_parts) {
    for (const SliceOverlap& overlap : FindOverlaps(checkpoint_.catalog(), tensor_, box)) {
      const StoredSlice& slice = *overlap.slice;
      const bool compared = in_parts || (options_.verify && overlap.is_whole_slice());
      if (compared) {
        checkpoint_.CheckSlice(tensor_, slice, Compared::kYes);
      } else {
        RequireReadable(checkpoint_, tensor_, slice);
      }
      const bool check =
          options_.verify && overlap.is_whole_slice() && !checkpoint_.IsVerified(slice);
      if (check && checkpoint_.records() != nullptr) VerifyRecord(slice);
      const CopyLayout layout(overlap.slice_box, box, overlap.intersection, info_.item_size);
      const bool own_checksum =
          slice.encoding == Encoding::kDense && checkpoint_.records() == nullptr;
      const bool wanted = in_parts ? layout.has_contiguous_source() : check;
      jobs_.push_back({&slice, layout, wanted && own_checksum, FreshMemoryOf(slice, layout)});
      CutIntoTasks(jobs_.size() - 1);
    }
  }

  // Null where the pages would not be filled one by one, or userfaultfd is not available.
  std::unique_ptr<UffdBuffer> FreshMemoryOf(const StoredSlice& slice,
                                            const CopyLayout& layout) const {
    const bool is_one_run = slice.encoding == Encoding::kDense && layout.count() == 1;
    if (!options_.fresh || !is_one_run || layout.span_size() < UffdBuffer::kMinSize) return nullptr;
    auto fresh =
        std::make_unique<UffdBuffer>(out_.subspan(layout.first().destination, layout.span_size()));
    return fresh->is_enabled() ? std::move(fresh) : nullptr;
  }

  // A V1 slice's checksum covers the block around it, so it cannot be computed while the slice is
  // read.
  void VerifyRecord(const StoredSlice& slice) const {
    if (slice.encoding == Encoding::kRecord) return;  // decoding verifies
    checkpoint_.records()->Verify(tensor_, slice);
    checkpoint_.SetVerified(slice);
  }

  void CutIntoTasks(size_t job) {
    const CopyLayout& layout = jobs_[job].layout;
    const auto add = [&](uint64_t first_run, uint64_t num_runs, uint64_t begin, uint64_t size) {
      tasks_.push_back({job, jobs_[job].task_sizes.size(), first_run, num_runs, begin, size});
      jobs_[job].task_sizes.push_back(size);
    };
    if (jobs_[job].slice->encoding == Encoding::kRecord) {
      add(0, layout.count(), 0, layout.span_size() * layout.count());
    } else if (layout.span_size() >= kReadChunkSize || layout.count() == 1) {
      // Tasks that end where pages end never have to share one.
      const uint8_t* first = out_.data() + layout.first().destination;
      const uint64_t odd = jobs_[job].fresh != nullptr ? UffdBuffer::UntilPage(first) : 0;
      for (uint64_t run = 0; run < layout.count(); ++run) {
        uint64_t size = odd > 0 ? odd : kReadChunkSize;
        for (uint64_t begin = 0; begin < layout.span_size(); begin += size, size = kReadChunkSize) {
          size = std::min(size, layout.span_size() - begin);
          add(run, 1, begin, size);
        }
      }
    } else {
      const uint64_t together =
          kReadChunkSize / std::max(layout.span_size(), layout.source_stride());
      const uint64_t step = std::max({uint64_t{1}, together, layout.count() / kMaxTasks});
      for (uint64_t run = 0; run < layout.count(); run += step) {
        const uint64_t n = std::min(step, layout.count() - run);
        add(run, n, 0, n * layout.span_size());
      }
    }
    jobs_[job].task_crcs.resize(jobs_[job].task_sizes.size());
  }

  void Run(const Task& task) {
    Job& job = jobs_[task.job];
    if (job.slice->encoding == Encoding::kRecord) {
      DecodeRecord(job);
    } else if (task.num_runs == 1) {
      ReadPartOfRun(job, task);
    } else {
      ReadRuns(job, task);
    }
  }

  void ReadPartOfRun(const Job& job, const Task& task) {
    job.layout.ForEach(task.first_run, 1, [&](const CopyLayout::Span& run) {
      const MutableByteSpan part = out_.subspan(run.destination + task.begin, task.size);
      const uint64_t offset = job.slice->offset + run.source + task.begin;
      const bool is_fresh = job.fresh != nullptr;
      const BounceBuffer landing(part, offset,
                                 is_fresh ? BouncePolicy::kBounce : BouncePolicy::kFastest);
      ReadInto(job, task, offset, landing.bytes());
      if (is_fresh) {
        job.fresh->Write(part.data(), landing.bytes());
      } else {
        landing.CopyOut();
      }
    });
  }

  // The bytes as they are stored, their checksum noted, and then in the native order.
  void ReadInto(const Job& job, const Task& task, uint64_t offset, MutableByteSpan bytes) {
    FileOf(job).ReadAt(offset, bytes);
    if (job.checksum) StoreChecksum(task, bytes);
    SwapBytes(bytes, SwapUnit());
  }

  // Several runs: read together when they lie close, one by one when not.
  void ReadRuns(const Job& job, const Task& task) {
    std::vector<CopyLayout::Span> runs;
    runs.reserve(task.num_runs);
    job.layout.ForEach(task.first_run, task.num_runs,
                       [&](const CopyLayout::Span& run) { runs.push_back(run); });
    const uint64_t span_size = job.layout.span_size();
    std::vector<uint8_t> buffer;
    for (size_t first = 0; first < runs.size();) {
      size_t last = first;
      while (last + 1 < runs.size() &&
             runs[last + 1].source - (runs[last].source + span_size) <= kMaxGap)
        ++last;
      const uint64_t start = runs[first].source;
      buffer.resize(runs[last].source + span_size - start);
      FileOf(job).ReadAt(job.slice->offset + start, buffer);
      if (job.checksum)
        StoreChecksum(task, buffer);  // a whole slice has no gaps: this is all of the task
      SwapBytes(buffer, SwapUnit());
      for (; first <= last; ++first) {
        std::memcpy(out_.data() + runs[first].destination,
                    buffer.data() + runs[first].source - start, span_size);
      }
    }
  }

  void DecodeRecord(const Job& job) {
    const std::vector<uint8_t> bytes = checkpoint_.records()->DecodeDense(tensor_, *job.slice);
    const uint64_t span_size = job.layout.span_size();
    job.layout.ForEach(0, job.layout.count(), [&](const CopyLayout::Span& run) {
      std::memcpy(out_.data() + run.destination, bytes.data() + run.source, span_size);
    });
  }

  void StoreChecksum(const Task& task, ByteSpan bytes) {
    jobs_[task.job].task_crcs[task.ordinal] = crc32c::Value(bytes.data(), bytes.size());
  }

  // Of all bytes that the job has read.
  static uint32_t Checksum(const Job& job) {
    uint32_t whole = 0;
    for (size_t i = 0; i < job.task_crcs.size(); ++i) {
      whole = crc32c::Combine(whole, job.task_crcs[i], job.task_sizes[i]);
    }
    return whole;
  }

  const File& FileOf(const Job& job) const { return checkpoint_.files().Get(job.slice->file); }
  unsigned SwapUnit() const { return checkpoint_.catalog().big_endian ? info_.swap_size : 1; }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const DataTypeInfo& info_;
  const MutableByteSpan out_;
  const ReadOptions& options_;
  std::vector<Job> jobs_;
  std::vector<Task> tasks_;
};

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

namespace {

// What can be wrong before anything is read. False: there is nothing to read.
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

}  // namespace

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
  BoxReader(checkpoint, tensor, info, out, options).Read(box);
}

std::vector<PartialChecksum> ReadBoxInParts(const Checkpoint& checkpoint, const Tensor& tensor,
                                            const Box& box, MutableByteSpan out,
                                            const ReadOptions& options) {
  const DataTypeInfo& info = RequireFixedSize(tensor);
  if (!CheckRequest(checkpoint, tensor, info, box, out)) return {};
  return BoxReader(checkpoint, tensor, info, out, options).ReadInParts(box);
}

}  // namespace tensorbundle
