// SPDX-License-Identifier: Apache-2.0
// Plan of a parallel read: which bytes of which stored slices go where, cut into tasks for threads.
// Box reads (read/read_box.h) and row streams (read/row_stream.h) are both executed by it.
//
// A task reads some adjacent spans of a slice with one system call, or some bytes of one long span.
// Its checksum is computed right after the read, when the bytes are still in the cache; the
// checksums of a slice's tasks are combined afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/data_type.h"
#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/io/uffd_buffer.h"
#include "tensorbundle/read/copy_layout.h"

namespace tensorbundle {

// Buffers that direct I/O reads into. They are reused, because new memory would cost a page fault
// per 4 KiB, and are huge pages, because a device gets a request as pieces of contiguous memory: a
// request for many small pages exceeds the pieces that it takes, and is split.
// Threads: thread-safe.
class BouncePool {
 public:
  static constexpr size_t kBufferSize = size_t{2} << 20;

  // Takes a buffer of kBufferSize bytes, aligned to kDirectAlignment. Throws: std::bad_alloc.
  HugePageBuffer Take();
  void GiveBack(HugePageBuffer buffer);

 private:
  std::mutex mutex_;
  std::vector<HugePageBuffer> free_;
};

// What a plan reads of one stored slice.
struct SliceRead {
  const StoredSlice* slice;
  CopyLayout layout;           // from the slice's elements to the destination
  const File* file = nullptr;  // where the slice is stored; not used for Encoding::kRecord
  ByteSpan decoded{};          // Encoding::kRecord: all elements; if empty, the task decodes them
  bool has_checksum = false;   // compute the CRC32C; requires layout.has_contiguous_source()
  bool scans_slice = false;    // one task reads the whole slice, for its CRC32C, in any layout
  uint64_t chunk_size = kReadChunkSize;  // bytes per task
  std::unique_ptr<UffdBuffer> uffd{};    // over the destination, or null; requires one span
  BouncePool* pool = nullptr;            // buffers for direct I/O; null: each task has its own
  size_t first_task = 0;                 // the tasks, set by ReadPlan::Add()
  size_t num_tasks = 0;
};

// The work of one thread at a time: some spans, or some bytes of one span. Tasks of a slice are in
// the order of its bytes, without gaps if the source is contiguous.
struct ReadTask {
  size_t read = 0;  // index of the SliceRead
  uint64_t first_span = 0;
  uint64_t num_spans = 0;
  uint64_t begin = 0;  // offset in the span, if num_spans is 1
  uint64_t size = 0;   // in bytes
  uint32_t crc = 0;    // of the stored bytes, if the SliceRead has a checksum
};

// Lifetime: refers to the checkpoint, the tensor, the type and the destination.
class ReadPlan {
 public:
  ReadPlan(const Checkpoint& checkpoint, const Tensor& tensor, const DataTypeInfo& info,
           MutableByteSpan out)
      : checkpoint_(checkpoint), tensor_(tensor), info_(info), out_(out) {}

  // Cuts the read into tasks.
  void Add(SliceRead read);

  const std::vector<SliceRead>& reads() const { return reads_; }
  size_t num_tasks() const { return tasks_.size(); }
  const SliceRead& ReadOf(size_t task) const { return reads_[tasks_[task].read]; }
  uint64_t out_size() const { return out_.size(); }

  // Executes a task: writes native-endian elements to the destination. Threads: any number, each
  // with another task. Throws what File::ReadAt and RecordStore::DecodeDense throw.
  void Run(size_t task);

  // Returns the CRC32C of the stored bytes of a read with a checksum.
  // Requires: all of its tasks have run.
  uint32_t Checksum(const SliceRead& read) const;

 private:
  void AddTask(SliceRead* read, uint64_t first_span, uint64_t num_spans, uint64_t begin,
               uint64_t size);
  void CopyDecoded(const SliceRead& read) const;
  void ScanSlice(const SliceRead& read, ReadTask* task) const;
  void ReadPartOfSpan(const SliceRead& read, ReadTask* task) const;
  void CopyBorrowed(const SliceRead& read, uint64_t offset, MutableByteSpan part,
                    uint32_t* crc) const;
  void ReadAdjacentSpans(const SliceRead& read, ReadTask* task) const;
  void ReadDistantSpans(const SliceRead& read, const ReadTask& task) const;
  bool swaps_bytes() const { return checkpoint_.catalog().big_endian && info_.swap_size > 1; }
  void FinishRead(const SliceRead& read, MutableByteSpan bytes, uint32_t* crc) const;

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const DataTypeInfo& info_;
  const MutableByteSpan out_;
  std::vector<SliceRead> reads_;
  std::vector<ReadTask> tasks_;
};

}  // namespace tensorbundle
