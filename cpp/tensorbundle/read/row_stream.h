// SPDX-License-Identifier: Apache-2.0
// Sequential read of a tensor in batches of rows, from the first row to the last. A batch takes one
// contiguous range of each slice that it intersects, however the slices tile the tensor, so the
// checksums of the slices are computed on the way and compared when the last byte of a slice is
// read.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/io/page_cache.h"
#include "tensorbundle/read/read_plan.h"

namespace tensorbundle {

struct RowReadOptions {
  int threads = 1;
  bool verify = true;         // compare the checksum of each slice that is not verified
  bool allow_direct = false;  // use direct I/O for ranges that are not in the page cache
  bool is_whole = false;      // no row is used before all rows were read
  const std::atomic<bool>* stop = nullptr;  // if it becomes true, Read() throws StreamStopped
};

// Thrown by RowReader::Read() after `stop` became true.
struct StreamStopped {};

// Whether a stream of so many bytes may use direct I/O: the checkpoint's mode is automatic, and the
// stream is long.
bool AllowsDirect(const Checkpoint& checkpoint, uint64_t stream_size);

// A slice and the progress of the stream in it.
struct StreamedSlice {
  const StoredSlice* slice;
  Box box;  // in the tensor
  int64_t first_row;
  int64_t end_row;
  bool is_entered = false;
  bool has_checksum = false;       // compute the checksum on the way
  uint32_t crc = 0;                // of the bytes so far
  std::vector<uint8_t> decoded{};  // elements of a slice that is stored encoded
};

// Rows that are being read. Lifetime: at most that of the reader.
struct RowBatch {
  ReadPlan plan;
  int64_t first_row = 0;
  int64_t end_row = 0;
  bool is_direct = false;                // some of its files use direct I/O
  std::vector<StreamedSlice*> slices{};  // of each SliceRead of the plan
};

// Keeps slices that must be decoded (some of V1's) decoded from their first row to their last.
// Lifetime: the checkpoint and the tensor must outlive the reader.
// Threads: Plan() one at a time, Finish() one at a time; Plan(), Read() and Finish() of different
// batches may run at the same time.
class RowReader {
 public:
  // Checks everything that can be checked without reading data. Throws CorruptionError for elements
  // that are stored nowhere or twice and for short files; UnsupportedError for elements without a
  // fixed size; what DataFiles::Get throws.
  RowReader(const Checkpoint& checkpoint, const Tensor& tensor, const RowReadOptions& options);

  // Rows along axis 0; a scalar has one.
  int64_t num_rows() const { return num_rows_; }
  uint64_t row_size() const { return row_size_; }  // in bytes

  // Plans to fill `out` with the next rows: as many as there are and as fit. Reads only slices that
  // must be decoded or verified as a whole. Throws CorruptionError, IOFailure.
  RowBatch Plan(MutableByteSpan out);

  // Reads the rows, native-endian, while up to `num_workers` - 1 other batches are being read with
  // their share of the threads. Throws CorruptionError and IOFailure, which name the slice;
  // StreamStopped.
  void Read(RowBatch* batch, int num_workers) const;

  // Compares the checksums of the slices that end in the batch. Throws CorruptionError.
  // Requires: the batch was read; batches come in the order of Plan().
  void Finish(RowBatch* batch);

 private:
  void AddSlice(const StoredSlice& slice);
  void EnterSlice(StreamedSlice* streamed);
  void PlanSlice(StreamedSlice* streamed, const Box& box, RowBatch* batch);
  void RunTask(size_t task, RowBatch* batch) const;
  void LeaveSlice(StreamedSlice* streamed);
  PageCachePolicy& PolicyOf(const StoredSlice& slice);

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const RowReadOptions options_;
  const DataTypeInfo& info_;
  int64_t num_rows_;
  uint64_t row_size_ = 0;
  int64_t next_row_ = 0;
  std::vector<StreamedSlice> slices_;  // by first row; those before first_open_ are planned
  size_t first_open_ = 0;
  std::map<uint32_t, PageCachePolicy> policies_;  // by file
  BouncePool bounce_pool_;
};

}  // namespace tensorbundle
