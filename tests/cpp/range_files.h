// SPDX-License-Identifier: Apache-2.0
// Checkpoints whose files are read in ranges, as those of a store.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
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

}  // namespace tensorbundle::testing
