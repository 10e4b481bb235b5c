// SPDX-License-Identifier: Apache-2.0
// Checkpoints whose files are read in ranges, as those of a store, or by requests to a server.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle::testing {

// Serves ranges of a local file, and counts the bytes.
class LocalReader final : public RangeReader {
 public:
  explicit LocalReader(std::shared_ptr<const File> file) : file_(std::move(file)) {}
  ByteSpan Read(uint64_t offset, uint64_t size) const override {
    bytes_.assign(std::min<uint64_t>(size, file_->size() - offset), 0);
    file_->ReadAt(offset, bytes_);
    num_bytes += bytes_.size();
    return bytes_;
  }

  inline static uint64_t num_bytes = 0;

 private:
  std::shared_ptr<const File> file_;
  mutable std::vector<uint8_t> bytes_;
};

inline std::shared_ptr<const File> OpenRanges(const std::string& path, ReadMode) {
  auto file = File::Open(path);
  const uint64_t size = file->size();
  return File::OfRanges(path, size, std::make_unique<LocalReader>(std::move(file)));
}

// Opens all tensors of a checkpoint through RangeReaders.
inline std::shared_ptr<const Checkpoint> OpenThroughRanges(const std::string& prefix) {
  const auto file = OpenIndexFile(prefix, &OpenRanges);
  const auto index = std::make_shared<const BundleIndex>(
      ReadBundleIndex(prefix, std::make_shared<FileSource>(file)));
  std::vector<const Tensor*> tensors;
  for (const Tensor& tensor : index->catalog.tensors) tensors.push_back(&tensor);
  return Checkpoint::OpenTensors(index, tensors, IoMode::kAuto, &OpenRanges);
}

// Serves a local file by requests, and lists them.
class LocalRequests final : public RequestReader {
 public:
  struct Request {
    uint64_t offset;
    uint64_t size;
  };

  explicit LocalRequests(std::shared_ptr<const File> file) : file_(std::move(file)) {}
  void Read(uint64_t offset, MutableByteSpan out) const override {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      requests.push_back({offset, out.size()});
    }
    file_->ReadAt(offset, out);
  }

  static std::vector<Request> Take() { return std::exchange(requests, {}); }

  inline static std::mutex mutex;
  inline static std::vector<Request> requests;  // of all files

 private:
  std::shared_ptr<const File> file_;
};

inline std::shared_ptr<const File> OpenByRequests(const std::string& path, ReadMode) {
  auto file = File::Open(path);
  const uint64_t size = file->size();
  return File::OfRequests(path, size, std::make_unique<LocalRequests>(std::move(file)));
}

inline std::shared_ptr<const Checkpoint> OpenThroughRequests(const std::string& prefix) {
  return Checkpoint::OpenRemote(prefix, &OpenByRequests);
}

}  // namespace tensorbundle::testing
