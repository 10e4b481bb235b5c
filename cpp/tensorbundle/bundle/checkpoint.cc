// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/checkpoint.h"

#include <utility>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/quoted.h"
#include "tensorbundle/bundle/bundle_index.h"

namespace tensorbundle {

std::shared_ptr<const Checkpoint> Checkpoint::OpenBundle(const std::string& prefix, IoMode mode) {
  BundleIndex index = ReadBundleIndex(prefix);
  return std::make_shared<const Checkpoint>(std::move(index.catalog), index.checksum, mode,
                                            nullptr);
}

std::shared_ptr<const Checkpoint> Checkpoint::OpenTensor(std::shared_ptr<const BundleIndex> index,
                                                         const Tensor& tensor, IoMode mode) {
  const uint32_t checksum = index->checksum;
  std::shared_ptr<const Catalog> catalog(index, &index->catalog);
  std::vector<bool> wanted(catalog->files.size());
  for (const Piece& piece : catalog->Pieces(tensor)) wanted[piece.file] = true;
  DataFiles files(catalog->files, mode, wanted);
  return std::shared_ptr<const Checkpoint>(
      new Checkpoint(std::move(catalog), std::move(files), checksum, mode, nullptr));
}

Checkpoint::Checkpoint(std::shared_ptr<const Catalog> catalog, DataFiles files,
                       uint32_t index_checksum, IoMode mode,
                       std::unique_ptr<const RecordStore> records)
    : catalog_(std::move(catalog)),
      files_(std::move(files)),
      index_checksum_(index_checksum),
      mode_(mode),
      records_(std::move(records)),
      verified_(new std::atomic<bool>[catalog_->pieces.size()]()) {}

Checkpoint::Checkpoint(Catalog catalog, uint32_t index_checksum, IoMode mode,
                       std::unique_ptr<const RecordStore> records)
    : Checkpoint(std::make_shared<const Catalog>(std::move(catalog)), DataFiles({}, mode),
                 index_checksum, mode, std::move(records)) {
  files_ = DataFiles(catalog_->files, mode);
}

const File& Checkpoint::FileOf(const Tensor& tensor, const Piece& piece) const {
  try {
    return files_.Get(piece.file);
  } catch (const CheckpointNotFoundError& error) {
    throw CheckpointNotFoundError(Describe(*catalog_, tensor, piece) + ": " + error.what(),
                                  error.path());
  } catch (const IOFailure& error) {
    throw IOFailure(Describe(*catalog_, tensor, piece) + ": " + error.what(), error.path(),
                    error.error_number());
  }
}

void Checkpoint::CheckPiece(const Tensor& tensor, const Piece& piece) const {
  const File& file = FileOf(tensor, piece);
  if (RangeFits(piece.offset, piece.size, file.size())) return;
  throw CorruptionError(file.path() + " has " + std::to_string(file.size()) + " bytes, but " +
                        Describe(*catalog_, tensor, piece) + " takes " +
                        std::to_string(piece.size) + " at offset " + std::to_string(piece.offset) +
                        "; was the file truncated?");
}

std::string Describe(const Catalog& catalog, const Tensor& tensor, const Piece& piece) {
  std::string text = "tensor " + Quoted(tensor.name);
  if (piece.first_extent != Piece::kWholeTensor) {
    text += ", slice " + ToString(catalog.BoxOf(tensor, piece));
  }
  return text;
}

}  // namespace tensorbundle
