// SPDX-License-Identifier: Apache-2.0
// Reading a tensor once, from its first row to its last.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/io/page_cache.h"

namespace tensorbundle {

struct RowReadOptions {
  int threads = 1;
  bool verify = true;         // compare the checksum of every slice not verified before
  bool allow_direct = false;  // let cold ranges be read past the page cache
  bool is_whole = false;      // no row is delivered before all of them were read
  const std::atomic<bool>* stop = nullptr;  // set by anyone to end a Read early
};

// Thrown by RowReader::Read when it was stopped.
struct StreamStopped {};

// Whether a stream of that many bytes may go past the page cache: by the checkpoint's mode, which a
// stream overrules only where it leaves the choice.
bool AllowsDirect(const Checkpoint& checkpoint, uint64_t stream_size);

// Hands out the rows of a tensor of fixed-size elements in order. A row range takes one contiguous
// range of every slice that it meets, however the slices tile the tensor, so that their checksums
// are computed on the way and compared when the last byte of a slice was read. Plan is for
// one thread at a time, and so is Finish; Plan, Run and Finish of different chunks may coincide.
//
// Slices that must be decoded (some of V1's) are kept decoded from their first row to their last.
class RowReader {
 public:
  // Checks everything that can be checked without reading data. Throws as ReadBox does. The
  // checkpoint and the tensor outlive the reader.
  RowReader(const Checkpoint& checkpoint, const Tensor& tensor, const RowReadOptions& options);
  ~RowReader();

  // Rows along axis 0; a scalar has one.
  int64_t num_rows() const { return num_rows_; }
  uint64_t row_size() const { return row_size_; }  // in bytes

  // Some rows on their way.
  class Chunk;

  // Plans to fill `out` with the next rows, native-endian: as many as it has room for, which are
  // there. Reads nothing but what must be decoded or verified beforehand.
  Chunk Plan(MutableByteSpan out);

  // Fills it, while `lanes` - 1 others are being filled with their share of the threads. Throws
  // IOFailure and the like, naming the slice; StreamStopped.
  void Run(Chunk* chunk, int lanes) const;

  // To be called in the order of Plan, for chunks that were run. Throws CorruptionError when a
  // slice ends in these rows and has another checksum than stored.
  void Finish(Chunk* chunk);

 private:
  struct SliceState;
  struct Part;
  struct Task;

  void AddSlice(const StoredSlice& slice);
  void Enter(SliceState* state);
  void PlanSlice(SliceState* state, const Box& box, Chunk* chunk);
  void RunTask(Task* task, const Chunk& chunk) const;
  void ReadTask(Task* task, const Chunk& chunk) const;
  void Leave(SliceState* state);
  PageCachePolicy& SourceOf(const StoredSlice& slice);

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const RowReadOptions options_;
  uint64_t item_size_;
  unsigned swap_unit_;
  int64_t num_rows_;
  uint64_t row_size_ = 0;
  int64_t next_row_ = 0;
  std::vector<SliceState> states_;  // by their first row; those before first_open_ are planned
  size_t first_open_ = 0;
  std::map<uint32_t, PageCachePolicy> sources_;  // by file
};

// Lives no longer than its reader.
class RowReader::Chunk {
 public:
  Chunk(Chunk&&) noexcept;
  ~Chunk();

 private:
  friend class RowReader;
  Chunk(MutableByteSpan out, int64_t first_row, int64_t end_row);

  MutableByteSpan out_;
  int64_t first_row_;
  int64_t end_row_;
  bool is_direct_ = false;  // the page cache, somewhere
  std::vector<Part> parts_;
  std::vector<Task> tasks_;
};

}  // namespace tensorbundle
