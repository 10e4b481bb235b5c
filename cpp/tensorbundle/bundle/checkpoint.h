// SPDX-License-Identifier: Apache-2.0
// An open checkpoint: its catalog and its files.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/bundle/data_files.h"

namespace tensorbundle {

struct BundleIndex;

// Whether a caller compares the bytes of a stored slice with their checksum before it returns them.
enum class Compared : uint8_t { kYes, kNo };

// An open checkpoint. Only the set of verified slices changes after open. Threads: thread-safe.
// Lifetime: views of its tensors keep the mappings alive, not the checkpoint.
class Checkpoint {
 public:
  // Opens the index and the data files of a V2 checkpoint. Starts again if the index is replaced
  // meanwhile. A missing data file is not an error yet.
  // Throws: as ReadBundleIndex; CorruptionError if the index is replaced at every attempt.
  static std::shared_ptr<const Checkpoint> OpenBundle(const std::string& prefix, IoMode mode);

  // Opens a V2 checkpoint in another file system, and never maps it. Reads the index at once. Does
  // not notice that it is replaced. Throws: as ReadBundleIndex; what `opener` throws.
  static std::shared_ptr<const Checkpoint> OpenRemote(const std::string& prefix,
                                                      const FileOpener& opener);

  // Opens the files of some tensors of a V2 checkpoint whose index was read before. Returns null if
  // the index has been replaced since. Requires: the bytes of other tensors are not used.
  static std::shared_ptr<const Checkpoint> OpenTensors(std::shared_ptr<const BundleIndex> index,
                                                       std::span<const Tensor* const> tensors,
                                                       IoMode mode,
                                                       const FileOpener& opener = nullptr);

  // `records` may be null.
  Checkpoint(Catalog catalog, uint32_t index_checksum, IoMode mode,
             std::unique_ptr<const RecordStore> records, const FileOpener& opener = nullptr);

  const Catalog& catalog() const { return *catalog_; }
  // The catalog without the files, for users that outlive the checkpoint.
  const std::shared_ptr<const Catalog>& shared_catalog() const { return catalog_; }
  const DataFiles& files() const { return *files_; }
  const RecordStore* records() const { return records_.get(); }
  // The file that lists the tensors: the index, or the first table of a V1 checkpoint.
  std::string listing_file() const;

  uint32_t index_checksum() const { return index_checksum_; }
  IoMode mode() const { return mode_; }

  // Checks that a slice is inside its file, and that the file as a whole can be a data file.
  // Throws: CorruptionError if the slice is not inside the file, or if DataFiles::Diagnosis()
  // reports an error and either is certain or the bytes will not be compared; as DataFiles::Get.
  //
  // RequireReadable() in read/verify.h also handles doubtful files.
  void CheckSlice(const Tensor& tensor, const StoredSlice& slice, Compared compared) const;

  // Whether a slice has been verified through this object.
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
                                                     const std::vector<bool>* wanted, IoMode mode,
                                                     const FileOpener& opener = nullptr);

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

// Returns warnings about slices that share bytes and files that continue after their last slice.
// Both are valid, but may indicate an error of the writer. At most 20 sentences.
std::vector<std::string> StorageWarnings(const Checkpoint& checkpoint);

}  // namespace tensorbundle
