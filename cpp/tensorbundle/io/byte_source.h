// SPDX-License-Identifier: Apache-2.0
// Random access to bytes in memory or in a file, for the table reader.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual const std::string& path() const = 0;  // for messages
  virtual uint64_t size() const = 0;

  // Returns the bytes [offset, offset + size). Requires: they are inside the source.
  // Lifetime: borrowed from the source, or from `*scratch`, which is then filled with them.
  virtual ByteSpan Read(uint64_t offset, uint64_t size, std::vector<uint8_t>* scratch) const = 0;
};

// A file that was read into memory. Later changes of the file have no effect.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(const File& file) : path_(file.path()), bytes_(file.size()) {
    file.ReadAt(0, bytes_);
  }
  MemorySource(std::string path, std::vector<uint8_t> bytes)
      : path_(std::move(path)), bytes_(std::move(bytes)) {}

  const std::string& path() const override { return path_; }
  uint64_t size() const override { return bytes_.size(); }
  ByteSpan bytes() const { return bytes_; }
  ByteSpan Read(uint64_t offset, uint64_t size, std::vector<uint8_t>*) const override {
    return ByteSpan(bytes_).subspan(offset, size);
  }

 private:
  std::string path_;
  std::vector<uint8_t> bytes_;
};

// A file that is read range by range.
class FileSource final : public ByteSource {
 public:
  explicit FileSource(std::shared_ptr<const File> file) : file_(std::move(file)) {}

  const std::string& path() const override { return file_->path(); }
  uint64_t size() const override { return file_->size(); }
  ByteSpan Read(uint64_t offset, uint64_t size, std::vector<uint8_t>* scratch) const override {
    scratch->resize(size);
    file_->ReadAt(offset, *scratch);
    return *scratch;
  }

 private:
  std::shared_ptr<const File> file_;
};

}  // namespace tensorbundle
