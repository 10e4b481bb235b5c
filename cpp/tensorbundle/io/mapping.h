// SPDX-License-Identifier: Apache-2.0
// Memory mappings of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

// Owns a mapping. Views share the ownership, so that no close() can invalidate an array. Accessing
// a page beyond the end of a truncated file kills the process (SIGBUS). Copies are therefore made
// with File::ReadAt, never from a mapping.
// Throws: every factory throws IOFailure if the system refuses the mapping.
class Mapping {
 public:
  // Maps the whole file read-only. An empty file gives a mapping of no bytes.
  static std::shared_ptr<const Mapping> OfFile(const File& file);

  // Maps the whole file for callers that may write to it. Writes go to private pages and never
  // reach the file. Reserves no memory for them. Falls back to OfFile if the system refuses such a
  // mapping (strict overcommit, a limit on data).
  static std::shared_ptr<const Mapping> Private(const File& file);

  // Maps [offset, offset + size) of the file privately and writably. Writes never reach the file,
  // and no memory is reserved for pages that are not written. The `padding` bytes that follow may
  // be read and written too, even beyond the end of the file; their contents are unspecified.
  // Throws also: CorruptionError if the range is not inside the file.
  static std::shared_ptr<const Mapping> CopyOnWrite(const File& file, uint64_t offset,
                                                    uint64_t size, uint64_t padding = 0);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  ByteSpan bytes() const { return {data_, size_}; }
  uint8_t* writable_data() const { return data_; }  // of CopyOnWrite only

 private:
  // Maps nothing. The factories do that later, so that a failed allocation leaks no mapping.
  Mapping() = default;
  void Hold(void* base, size_t mapped, size_t skip, size_t size);

  void* base_ = nullptr;
  size_t mapped_ = 0;  // 0: nothing is mapped
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tensorbundle
