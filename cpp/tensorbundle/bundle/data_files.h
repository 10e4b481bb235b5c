// SPDX-License-Identifier: Apache-2.0
// The data files of a checkpoint: opened together with the index, mapped on first use, and compared
// with the index by their sizes, ages and first bytes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

// How data is read.
enum class IoMode {
  kAuto,  // maps for views, reads for copies
  kMmap,
  kPread,   // never maps, so that errors of the disk are exceptions, not signals
  kDirect,  // never maps, and bypasses the page cache
};

// What is wrong with a data file as a whole.
enum class FileError : uint8_t {
  kNone,
  kEmpty,
  kTooShort,  // it ends before its last stored slice
  kGitLfsPointer,
  kHtmlPage,
  kXmlDocument,
  kGzip,
  kBzip2,
  kXz,
  kZstandard,
  kSevenZip,
  kZip,
  kTar,
  kSafetensors,
  kJson,
  kShortText,  // such as "404: Not Found"
};

struct FileDiagnosis {
  FileError error = FileError::kNone;
  bool is_certain = false;  // no checksum of its bytes can be correct
};

// Compares a file with the end of its last stored slice. Accepts every file of exactly that size.
// Otherwise reads at most the first 512 bytes; ignores errors of that read, because the next read
// reports them.
FileDiagnosis Diagnose(const File& file, uint64_t end);

// Returns the error message about a file, with its path; "" for kNone.
std::string DescribeFileError(const File& file, FileError error, uint64_t end);

// Returns the error message about a missing data file: a dangling link, or files nearby that may be
// the file under another name. Reads at most 5,000 names of the directory.
std::string DescribeMissingFile(const std::string& path);

// The identity of the index file when it was read.
struct IndexFile {
  std::string path;
  FileIdentity identity;

  // Whether the path has another file or other contents now. False if the file was deleted.
  // Throws: IOFailure.
  bool WasReplaced() const;
};

// The data files. If one cannot be opened or mapped, only the calls for that file throw, and each
// call tries again.
//
// A writer replaces the data files first and the index last. A data file may therefore be newer
// than the index that was read: see Age. Threads: thread-safe.
class DataFiles {
 public:
  // Opens the files of the catalog that are marked in `wanted`, or all of them if that is null.
  // Calls for other files throw std::out_of_range. `index` is the index file, if there is one.
  // `opener`, if there is one, opens each file when it is used first, instead of File::Open() now.
  // Lifetime: the catalog must outlive the object.
  DataFiles(const Catalog& catalog, IoMode mode, std::optional<IndexFile> index = std::nullopt,
            const std::vector<bool>* wanted = nullptr, FileOpener opener = nullptr);
  ~DataFiles();
  DataFiles(const DataFiles&) = delete;
  DataFiles& operator=(const DataFiles&) = delete;

  // Returns the open file.
  // Throws: CheckpointNotFoundError with similar files in its message; IOFailure; CorruptionError
  // if the index has been replaced since it was read; what `opener` throws.
  const File& Get(uint32_t file) const;

  bool IsOpen(uint32_t file) const;

  // Returns the path of an open file that was rewritten in place since it was opened, or "".
  // Throws: as File::WasRewritten().
  std::string RewrittenFile() const;

  // What is wrong with the whole file. If anything is, its bytes must not be used before their
  // checksum is compared. DescribeError() returns the message, or "" for kNone. Throws as Get().
  const FileDiagnosis& Diagnosis(uint32_t file) const;
  std::string DescribeError(uint32_t file) const;

  // The age of an open file, compared with the index.
  enum class Age {
    kOlder,     // older than the index, as after a finished save; or unknown
    kSameTick,  // as old as the index, by the clock of the file system
    kNewer      // the checkpoint is being replaced, or its index was copied first
  };
  Age AgeOf(uint32_t file) const;

  // Whether slices of a file must be compared with their checksums before their first use, because
  // the file may be newer than the index. Checkpoint sets this at open.
  bool IsDoubtful(uint32_t file) const;
  void SetDoubtful(uint32_t file);

  // Maps the whole file for views, with private pages, so that writes to a view neither fail nor
  // change the file. Maps shared read-only pages if the system refuses private ones. Returns null
  // if the mode never maps, or the file has no descriptor. Throws: as Get(); CorruptionError if the
  // file has shrunk; IOFailure if the system refuses both.
  std::shared_ptr<const Mapping> MapForViews(uint32_t file) const;

  // Maps the whole file for reading: pages that writes to views do not change. Otherwise as above.
  std::shared_ptr<const Mapping> MapForReading(uint32_t file) const;

  // Whether an opener opens the files.
  bool has_opener() const { return opener_ != nullptr; }

  size_t size() const { return size_; }
  const std::optional<IndexFile>& index() const { return index_; }

 private:
  struct Entry;
  // Null until the file is mapped, and then never changed. Without a lock, because a child of
  // fork(2) could not take it if another thread of its parent had it.
  using SharedMapping = std::atomic<const std::shared_ptr<const Mapping>*>;

  Entry& EntryOf(uint32_t file) const;
  FileDiagnosis DiagnoseFile(uint32_t file, const File& opened) const;
  void Open(uint32_t file) const;
  const File& OpenOnce(uint32_t file) const;
  std::string MissingMessage(uint32_t file) const;
  void Close(uint32_t file);
  std::shared_ptr<const Mapping> MapOnce(
      uint32_t file, SharedMapping Entry::* place,
      std::shared_ptr<const Mapping> (*map)(const File& file)) const;

  const Catalog& catalog_;
  const IoMode mode_;
  const FileOpener opener_;
  const std::optional<IndexFile> index_;
  const size_t size_;
  std::unique_ptr<Entry[]> entries_;  // by number of the file
};

}  // namespace tensorbundle
