// SPDX-License-Identifier: Apache-2.0
// What a data file is that cannot be what the index says, and why one is not there: sentences for
// messages.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

// What a file is that is not the data file which the index speaks of.
struct ForeignFile {
  std::string reason;       // "": it may be that data file
  bool is_certain = false;  // no checksum of its bytes can be right
};

// Compares a file with a data file whose stored slices end at `end`. A file of just that size is
// not looked into. Reads at most its first 512 bytes. Never throws for a file that cannot be read:
// whoever reads it next is told.
ForeignFile Diagnose(const File& file, uint64_t end);

// "the data file P is missing ...": a link to nowhere, or files nearby that may be it under another
// name. For a path that was not found. Reads the names in its directory, the first few thousand.
std::string WhyMissing(const std::string& path);

// The data files of a checkpoint: opened together with the index, mapped when that is first needed.

// How data are read. kAuto maps for views and reads for copies.
enum class IoMode {
  kAuto,
  kMmap,
  kPread,   // never maps: nothing can ever be more than an exception
  kDirect,  // never maps, and reads past the page cache
};

// The index that the data files belong to, as it was when it was read.
struct IndexFile {
  std::string path;
  FileIdentity identity;

  // Whether another file, or other contents, are there now. A file that is gone was deleted, not
  // replaced. Throws IOFailure.
  bool WasReplaced() const;
};

// Thread-safe. A file that cannot be opened or mapped fails those who ask for it, and nobody else;
// it is tried again each time, so that a failure lasts as long as its cause.
//
// A writer replaces the data files first and the index last. So a data file may be newer than the
// index that was read: see Age.
class DataFiles {
 public:
  // Opens the files of the catalog, or those of them that are marked; asking for another one is
  // std::out_of_range. The catalog outlives the object. `index` is for checkpoints that have one.
  DataFiles(const Catalog& catalog, IoMode mode, std::optional<IndexFile> index = std::nullopt,
            const std::vector<bool>* wanted = nullptr);
  ~DataFiles();
  DataFiles(const DataFiles&) = delete;
  DataFiles& operator=(const DataFiles&) = delete;

  // Throws CheckpointNotFoundError, with what is there instead, or IOFailure when the file cannot
  // be opened; CorruptionError when the checkpoint was replaced since it was opened.
  const File& Get(uint32_t file) const;

  bool IsOpen(uint32_t file) const;

  // Why no byte of a file is to be trusted without its checksum, if there is a reason: it ends
  // before the stored slices of the index do, or it is another kind of file. Throws as Get.
  const ForeignFile& Foreign(uint32_t file) const;

  // When an open file was made, compared with the index that was read.
  enum class Age {
    kOlder,     // than the index, as a finished save leaves it; or nothing is known
    kSameTick,  // as the index, by the clock of the file system
    kNewer      // the checkpoint is being replaced; or it was copied, the index first
  };
  Age AgeOf(uint32_t file) const;

  // Whether the contents of a file are to be compared with their checksums before they are used:
  // it may be newer than the index. Set by whoever opens the checkpoint.
  bool IsDoubtful(uint32_t file) const;
  void SetDoubtful(uint32_t file);

  // The whole file as memory for views: private pages, so that nobody who writes to them can be
  // killed or change the file; or, where the system refuses that, the file's own pages, read-only.
  // Null when the mode never maps. Throws as Get, CorruptionError when the file has shrunk, and
  // IOFailure when the system refuses any mapping.
  std::shared_ptr<const Mapping> MapForViews(uint32_t file) const;

  // The same for our own reading: the file's pages, whatever was written to those of the views.
  std::shared_ptr<const Mapping> MapForReading(uint32_t file) const;

  size_t size() const { return size_; }
  const std::optional<IndexFile>& index() const { return index_; }

 private:
  struct Entry;

  Entry& EntryOf(uint32_t file) const;
  void Open(uint32_t file) const;
  void Close(uint32_t file);
  std::shared_ptr<const Mapping> MapOnce(
      uint32_t file, std::shared_ptr<const Mapping> Entry::* place,
      std::shared_ptr<const Mapping> (*map)(const File& file)) const;

  const Catalog& catalog_;
  const IoMode mode_;
  const std::optional<IndexFile> index_;
  const size_t size_;
  mutable std::mutex mutex_;          // guards what an entry sets later than `open`
  std::unique_ptr<Entry[]> entries_;  // by number of the file
};

}  // namespace tensorbundle
