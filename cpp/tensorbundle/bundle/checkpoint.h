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
#include "tensorbundle/bundle/record_store.h"

namespace tensorbundle {

struct BundleIndex;

// Whether a caller compares the bytes of a stored piece with their checksum before anybody sees
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

  // Throws CorruptionError when the piece does not lie inside its file, or when its file as a whole
  // is not what the index says and its bytes are not going to be compared; as DataFiles::Get.
  //
  // What is left to do before bytes of a doubtful file are used: view/verify.h, RequireReadable.
  void CheckPiece(const Tensor& tensor, const Piece& piece, Compared compared) const;

  // Which pieces have been verified through this object.
  bool IsVerified(const Piece& piece) const {
    return verified_[IndexOf(piece)].load(std::memory_order_relaxed);
  }
  void SetVerified(const Piece& piece) const {
    verified_[IndexOf(piece)].store(true, std::memory_order_relaxed);
  }

 private:
  Checkpoint(std::shared_ptr<const Catalog> catalog, std::unique_ptr<DataFiles> files,
             uint32_t index_checksum, IoMode mode);

  static std::shared_ptr<const Checkpoint> OpenFiles(std::shared_ptr<const BundleIndex> index,
                                                     const std::vector<bool>* wanted, IoMode mode);

  const File& FileOf(const Tensor& tensor, const Piece& piece) const;
  size_t IndexOf(const Piece& piece) const {
    return static_cast<size_t>(&piece - catalog_->pieces.data());
  }

  std::shared_ptr<const Catalog> catalog_;
  std::unique_ptr<DataFiles> files_;  // refers to the catalog
  uint32_t index_checksum_;
  IoMode mode_;
  std::unique_ptr<const RecordStore> records_;
  std::unique_ptr<std::atomic<bool>[]> verified_;
};

// "tensor 'emb', slice [0:4, 0:8]": how messages name a piece.
std::string Describe(const Catalog& catalog, const Tensor& tensor, const Piece& piece);

}  // namespace tensorbundle
