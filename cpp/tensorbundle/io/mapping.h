// SPDX-License-Identifier: Apache-2.0
// Files as memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

// Owns a mapping and lives as long as anything that shows its bytes: views hold a share of it, so
// no close() can pull memory from under an array. Touching a page whose part of the file has been
// cut off kills the process (SIGBUS), which is why copies are made with File::ReadAt and never from
// here.
class Mapping {
 public:
  // Maps the whole file read-only. An empty file gives a mapping of no bytes.
  static std::shared_ptr<const Mapping> OfFile(const File& file);

  // Maps the whole file for those who may not keep to reading: what they write goes to pages of
  // this process, and neither fails nor reaches the file. No memory is reserved for that. Where the
  // system refuses such a mapping (strict overcommit, a limit on data), this is OfFile.
  static std::shared_ptr<const Mapping> Private(const File& file);

  // Maps [offset, offset + size) of the file privately and writably: writes stay in this process,
  // the file never changes, and no memory is reserved for pages that are not written.
  // `padding` more bytes behind them may be read and written too, whether or not the file goes on;
  // what is in them is not said.
  static std::shared_ptr<const Mapping> CopyOnWrite(const File& file, uint64_t offset,
                                                    uint64_t size, uint64_t padding = 0);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  ByteSpan bytes() const { return {data_, size_}; }
  uint8_t* writable_data() const { return data_; }  // of CopyOnWrite only

 private:
  // Maps nothing: the object comes first, so that no mapping is lost when memory runs out.
  Mapping() = default;
  void Hold(void* base, size_t mapped, size_t skip, size_t size);

  void* base_ = nullptr;
  size_t mapped_ = 0;  // 0: nothing is mapped
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace tensorbundle
