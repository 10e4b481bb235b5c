// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/v1_checkpoint.h"

#include <stdexcept>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/v1/dense_records.h"
#include "tensorbundle/v1/shard.h"
#include "tensorbundle/v1/v1_catalog.h"
#include "tensorbundle/v1/v1_records.h"

namespace tensorbundle {
namespace {

// What was found out through one descriptor is used through another.
void CheckSameFile(const FileIdentity& seen, const File& file) {
  if (file.identity() == seen) return;
  throw CorruptionError(file.path() + " was replaced while it was being opened; open it again");
}

}  // namespace

std::shared_ptr<const Checkpoint> OpenV1(const std::vector<std::string>& files, IoMode mode) {
  if (files.empty()) throw std::invalid_argument("a V1 checkpoint has at least one file");
  std::vector<V1Shard> shards;
  std::vector<FileIdentity> identities;
  uint32_t checksum = 0;
  for (const std::string& path : files) {
    shards.push_back(V1Shard::Open(path));
    identities.push_back(shards.back().file().identity());
    checksum = shards.back().ExtendWithChecksums(checksum);
  }
  V1Catalog merged = ReadV1Catalog(shards);
  LocateDenseRecords(shards, merged.names, &merged.catalog);
  auto records = std::make_unique<const V1Records>(std::move(shards), std::move(merged.names),
                                                   merged.catalog.extents);
  auto checkpoint = std::make_shared<const Checkpoint>(std::move(merged.catalog), checksum, mode,
                                                       std::move(records));
  for (uint32_t file = 0; file < files.size(); ++file) {
    CheckSameFile(identities[file], checkpoint->files().Get(file));
  }
  return checkpoint;
}

}  // namespace tensorbundle
