// SPDX-License-Identifier: Apache-2.0
// An open checkpoint: its catalog and its files.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/data_files.h"

namespace tensorbundle {

struct BundleIndex;

// Whether a caller compares the bytes of a stored slice with their checksum before anybody sees
// them.
enum class Compared : uint8_t { kYes, kNo };

// Immutable but for what it remembers as verified; thread-safe. Views of its tensors keep the
// mappings alive, not the checkpoint.
class Checkpoint {
 public:
  // Opens a V2 checkpoint: the index and, for as long as they are the index's, the data files.
  // Where the index was replaced meanwhile, all of it is opened again. A missing data file is no
  // error here. Throws as ReadBundleIndex; CorruptionError when the index is replaced again and
  // again.
  static std::shared_ptr<const Checkpoint> OpenBundle(const std::string& prefix, IoMode mode);

  // Opens just the files of one tensor of a V2 checkpoint whose index was read before. Asking for
  // another tensor's bytes is a mistake. Null when the index was replaced since it was read.
  static std::shared_ptr<const Checkpoint> OpenTensor(std::shared_ptr<const BundleIndex> index,
                                                      const Tensor& tensor, IoMode mode);

  // `records` is for formats that need it, else null.
  Checkpoint(Catalog catalog, uint32_t index_checksum, IoMode mode,
             std::unique_ptr<const RecordStore> records);

  const Catalog& catalog() const { return *catalog_; }
  const DataFiles& files() const { return *files_; }
  const RecordStore* records() const { return records_.get(); }
  // The file that lists the tensors: the index, or the first of V1's tables.
  std::string listing_file() const;

  uint32_t index_checksum() const { return index_checksum_; }
  IoMode mode() const { return mode_; }

  // Throws CorruptionError when the slice does not lie inside its file, or when its file as a whole
  // is not what the index says and its bytes are not going to be compared; as DataFiles::Get.
  //
  // What is left to do before bytes of a doubtful file are used: read/verify.h, RequireReadable.
  void CheckSlice(const Tensor& tensor, const StoredSlice& slice, Compared compared) const;

  // Which slices have been verified through this object.
  bool IsVerified(const StoredSlice& slice) const {
    return verified_[IndexOf(slice)].load(std::memory_order_relaxed);
  }
  void SetVerified(const StoredSlice& slice) const {
    verified_[IndexOf(slice)].store(true, std::memory_order_relaxed);
  }

 private:
  Checkpoint(std::shared_ptr<const Catalog> catalog, std::unique_ptr<DataFiles> files,
             uint32_t index_checksum, IoMode mode);

  static std::shared_ptr<const Checkpoint> OpenFiles(std::shared_ptr<const BundleIndex> index,
                                                     const std::vector<bool>* wanted, IoMode mode);

  const File& FileOf(const Tensor& tensor, const StoredSlice& slice) const;
  size_t IndexOf(const StoredSlice& slice) const {
    return static_cast<size_t>(&slice - catalog_->slices.data());
  }

  std::shared_ptr<const Catalog> catalog_;
  std::unique_ptr<DataFiles> files_;  // refers to the catalog
  uint32_t index_checksum_;
  IoMode mode_;
  std::unique_ptr<const RecordStore> records_;
  std::unique_ptr<std::atomic<bool>[]> verified_;
};

// "tensor 'emb', slice [0:4, 0:8]": how messages name a slice.
std::string Describe(const Catalog& catalog, const Tensor& tensor, const StoredSlice& slice);

// What is odd about how a checkpoint lies in its files, though nothing is wrong with it.

// Slices that share bytes, and files that go on behind their last slice: both are legal, and both
// can be the trace of a mix-up. One sentence each, the first few of a kind.
std::vector<std::string> StorageWarnings(const Checkpoint& checkpoint);

}  // namespace tensorbundle
