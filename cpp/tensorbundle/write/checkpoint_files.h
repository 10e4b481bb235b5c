// SPDX-License-Identifier: Apache-2.0
// The files of a checkpoint that is being written. They get their names together, the index last:
//
//   claim    <prefix>.index.tempstate<n>-tb, locked by flock(2) while the writer lives
//   write    <prefix>.data-SSSSS-of-NNNNN.tempstate<n>-tb
//   publish  sync the data files; name them; sync the directory; name the index; sync again
//
// A killed writer leaves no index, and files that the next writer for this prefix recognizes by
// their names and the free lock, and removes.
//
// Replacing a checkpoint must not let an old index refer to new data files. The new data files
// therefore get a number of shards that the old ones do not have, NNNNN + 1 for example, and the
// rename of the index replaces the old checkpoint at once. Then the files get their usual names
// in the same way: hard links for the data files, the rename of a second index, and the removal of
// the first names. Every index on the disk refers to its own data files at all times.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensorbundle/io/atomic_file.h"

namespace tensorbundle {

class CheckpointFiles {
 public:
  // Returns the bytes of the index for data files with this number of shards in their names.
  using IndexOf = std::function<std::string(int32_t num_shards)>;

  // Claims the prefix and removes what killed writers left. Creates the directory if its parent
  // exists.
  // Throws: IOFailure, with EEXIST if a V1 checkpoint has the name, or if files of a V2 checkpoint
  // exist and `overwrite` is false.
  CheckpointFiles(std::string prefix, int32_t num_shards, bool overwrite);
  // Removes all new files unless they were published.
  ~CheckpointFiles();
  CheckpointFiles(const CheckpointFiles&) = delete;
  CheckpointFiles& operator=(const CheckpointFiles&) = delete;

  int32_t num_shards() const { return num_shards_; }

  // Returns the data file of a shard. Creates it at the first call; not thread-safe then. Shards
  // without a call get no file.
  AtomicFile& DataFile(int32_t shard);

  // Publishes the checkpoint. Throws: IOFailure; the destination is then as it was before, except
  // if a failed sync of the directory is reported after the replacement.
  void Publish(const IndexOf& index_of);

 private:
  struct Names;  // what the directory has

  static std::vector<std::string>::const_iterator FindDataFile(const Names& names,
                                                               int32_t num_shards);
  Names ListNames() const;
  void RemoveLeftovers(Names* names) const;
  void CheckDestination(const Names& names) const;
  void Claim();
  int32_t FreeNumberOfShards(const Names& names) const;
  void PublishReplacing(const Names& names, int32_t num_shards, const IndexOf& index_of);
  void GiveUsualNames(const IndexOf& index_of);
  std::string InDirectory(const std::string& name) const;

  std::string prefix_;
  std::string directory_path_;  // ends in a slash, or is empty
  std::string base_;            // the prefix without its directory
  int32_t num_shards_;
  bool overwrite_;
  uint64_t number_;
  // Destroyed in reverse order: the index first, the directory last.
  std::unique_ptr<AtomicDirectory> directory_;
  std::vector<std::unique_ptr<AtomicFile>> data_files_;  // by shard; null: no file
  std::unique_ptr<AtomicFile> index_;
  int lock_ = -1;
};

}  // namespace tensorbundle
