// SPDX-License-Identifier: Apache-2.0
// Opening a checkpoint that may be replaced at the same time.
//
// TensorFlow writes data files under temporary names, renames them, and writes the index last. A
// reader that opens the index and then the data files can find:
//   1. a new index while it reads the old one: the identity (inode, size, times) changes meanwhile;
//   2. new data files with the old index, which is replaced soon after: the identity has changed
//      when it is checked again after the data files were opened;
//   3. new data files with the old index still in place: the data files are newer than the index.
// In cases 1 and 2, the checkpoint is opened again. Case 3 looks like a checkpoint that was copied
// with the index first. So some stored slices are compared with their checksums. If they differ,
// the reader waits up to kMaxWait for a new index, and then marks the file as doubtful. A file that
// is newer than the index and younger than kYoung is doubtful even if they agree. Each slice of a
// doubtful file is compared before its first use.
//
// Not detected:
//   - a data file that is rewritten in place, with the same inode;
//   - a save that was interrupted between the two renamings more than kYoung ago, if the sampled
//     slices are unchanged;
//   - such a save that began in the same tick of the file system's clock in which the save before
//   it
//     ended, because the files of a finished save often have the same time.
// Reads of whole slices and verification compare checksums in these cases too.
#include "tensorbundle/bundle/checkpoint.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"

namespace tensorbundle {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kMaxAttempts = 20;
constexpr milliseconds kPause(1);
constexpr milliseconds kMaxWait(20);  // for the index of newer data files
constexpr std::chrono::minutes kYoung(10);

constexpr size_t kMaxSampled = 16;
constexpr uint64_t kMaxSampledSize = uint64_t{16} << 10;
constexpr uint64_t kMaxOnlySampledSize = uint64_t{4} << 20;  // if all slices are large

constexpr size_t kMaxWarnings = 20;

bool IsYoung(const File& file) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::chrono::nanoseconds changed(file.identity().changed_ns);
  return now - changed < kYoung;  // also if the clock of the file system is ahead
}

bool CanBeSampled(const StoredSlice& slice, uint32_t file) {
  return slice.file == file && slice.size > 0 && slice.has_checksum &&
         slice.encoding == Encoding::kDense;
}

// Returns the smallest slice of a file and small ones from all parts of it.
std::vector<const StoredSlice*> Sample(const Catalog& catalog, uint32_t file) {
  std::vector<const StoredSlice*> small;
  const StoredSlice* smallest = nullptr;
  for (const StoredSlice& slice : catalog.slices) {
    if (!CanBeSampled(slice, file)) continue;
    if (smallest == nullptr || slice.size < smallest->size) smallest = &slice;
    if (slice.size <= kMaxSampledSize) small.push_back(&slice);
  }
  if (smallest == nullptr || smallest->size > kMaxOnlySampledSize) return {};
  std::vector<const StoredSlice*> sample{smallest};
  const size_t step = small.size() / kMaxSampled + 1;
  for (size_t i = 0; i < small.size(); i += step) sample.push_back(small[i]);
  return sample;
}

// Whether the sampled slices of a file have the checksums of the index. Ignores slices that cannot
// be read; later reads report these errors.
bool MatchesIndex(const Catalog& catalog, const File& file, uint32_t number) {
  std::vector<uint8_t> bytes;
  for (const StoredSlice* slice : Sample(catalog, number)) {
    if (!RangeFits(slice->offset, slice->size, file.size())) continue;
    bytes.resize(slice->size);
    try {
      file.ReadAt(slice->offset, bytes);
    } catch (const Error&) {
      continue;
    }
    if (crc32c::Value(bytes.data(), bytes.size()) != crc32c::Unmask(slice->masked_checksum)) {
      return false;
    }
  }
  return true;
}

// Waits up to kMaxWait. Returns whether the index is replaced in that time.
bool IsReplacedSoon(const IndexFile& index) {
  const auto end = steady_clock::now() + kMaxWait;
  while (steady_clock::now() < end) {
    if (index.WasReplaced()) return true;
    std::this_thread::sleep_for(kPause / 4);
  }
  return false;
}

// Compares the files that may be newer than the index with it, and marks doubtful ones. Returns
// false if the checkpoint has to be opened again.
bool CheckAges(const Catalog& catalog, DataFiles* files) {
  for (uint32_t file = 0; file < catalog.files.size(); ++file) {
    if (!files->IsOpen(file)) continue;
    const DataFiles::Age age = files->AgeOf(file);
    if (age == DataFiles::Age::kOlder) continue;
    const File& opened = files->Get(file);
    const bool matches = MatchesIndex(catalog, opened, file);
    if (!matches && IsReplacedSoon(*files->index())) return false;
    if (!matches || (age == DataFiles::Age::kNewer && IsYoung(opened))) files->SetDoubtful(file);
  }
  return true;
}

// ---- Warnings.

struct Stored {
  const Tensor* tensor;
  const StoredSlice* slice;
};

std::vector<Stored> InFileOrder(const Catalog& catalog) {
  std::vector<Stored> all;
  for (const Tensor& tensor : catalog.tensors) {
    for (const StoredSlice& slice : catalog.Slices(tensor)) {
      if (slice.size > 0) all.push_back({&tensor, &slice});
    }
  }
  std::sort(all.begin(), all.end(), [](const Stored& a, const Stored& b) {
    return std::tie(a.slice->file, a.slice->offset) < std::tie(b.slice->file, b.slice->offset);
  });
  return all;
}

// Returns the size of a file, or 0 if it cannot be opened.
uint64_t SizeOrZero(const DataFiles& files, uint32_t file) {
  try {
    return files.Get(file).size();
  } catch (const Error&) {
    return 0;  // reads of its tensors report the error
  }
}

}  // namespace

std::shared_ptr<const Checkpoint> Checkpoint::OpenBundle(const std::string& prefix, IoMode mode) {
  for (int attempt = 1;; ++attempt) {
    try {
      auto index = std::make_shared<const BundleIndex>(ReadBundleIndex(prefix));
      if (auto checkpoint = OpenFiles(std::move(index), nullptr, mode)) return checkpoint;
    } catch (const IndexReplacedError&) {
      if (attempt == kMaxAttempts) throw;
    }
    if (attempt == kMaxAttempts) {
      throw CorruptionError("the checkpoint " + prefix +
                            " is replaced faster than it can be opened");
    }
    std::this_thread::sleep_for(kPause);
  }
}

std::shared_ptr<const Checkpoint> Checkpoint::OpenRemote(const std::string& prefix,
                                                         const FileOpener& opener) {
  const std::shared_ptr<const File> file = OpenIndexFile(prefix, opener);
  auto index = std::make_shared<const BundleIndex>(
      ReadBundleIndex(prefix, std::make_shared<const MemorySource>(*file)));
  return OpenFiles(std::move(index), nullptr, IoMode::kPread, opener);
}

std::shared_ptr<const Checkpoint> Checkpoint::OpenTensors(std::shared_ptr<const BundleIndex> index,
                                                          std::span<const Tensor* const> tensors,
                                                          IoMode mode, const FileOpener& opener) {
  std::vector<bool> wanted(index->catalog.files.size());
  for (const Tensor* tensor : tensors) {
    for (const StoredSlice& slice : index->catalog.Slices(*tensor)) wanted[slice.file] = true;
  }
  return OpenFiles(std::move(index), &wanted, mode, opener);
}

std::shared_ptr<const Checkpoint> Checkpoint::OpenFiles(std::shared_ptr<const BundleIndex> index,
                                                        const std::vector<bool>* wanted,
                                                        IoMode mode, const FileOpener& opener) {
  std::shared_ptr<const Catalog> catalog(index, &index->catalog);
  auto files = std::make_unique<DataFiles>(*catalog, mode, index->file, wanted, opener);
  if (index->file && (index->file->WasReplaced() || !CheckAges(*catalog, files.get()))) {
    return nullptr;
  }
  return std::shared_ptr<const Checkpoint>(
      new Checkpoint(std::move(catalog), std::move(files), index->checksum, mode));
}

Checkpoint::Checkpoint(std::shared_ptr<const Catalog> catalog, std::unique_ptr<DataFiles> files,
                       uint32_t index_checksum, IoMode mode)
    : catalog_(std::move(catalog)),
      files_(std::move(files)),
      index_checksum_(index_checksum),
      mode_(mode),
      verified_(new std::atomic<bool>[catalog_->slices.size()]()) {}

Checkpoint::Checkpoint(Catalog catalog, uint32_t index_checksum, IoMode mode,
                       std::unique_ptr<const RecordStore> records, const FileOpener& opener)
    : catalog_(std::make_shared<const Catalog>(std::move(catalog))),
      files_(std::make_unique<DataFiles>(*catalog_, mode, std::nullopt, nullptr, opener)),
      index_checksum_(index_checksum),
      mode_(mode),
      records_(std::move(records)),
      verified_(new std::atomic<bool>[catalog_->slices.size()]()) {}

std::string Checkpoint::listing_file() const {
  if (files_->index()) return files_->index()->path;
  return catalog_->files.empty() ? std::string() : catalog_->files[0];
}

const File& Checkpoint::FileOf(const Tensor& tensor, const StoredSlice& slice) const {
  try {
    return files_->Get(slice.file);
  } catch (const CheckpointNotFoundError& error) {
    throw CheckpointNotFoundError(Describe(*catalog_, tensor, slice) + ": " + error.what(),
                                  error.path());
  } catch (const IOFailure& error) {
    throw IOFailure(Describe(*catalog_, tensor, slice) + ": " + error.what(), error.path(),
                    error.error_number());
  }
}

void Checkpoint::CheckSlice(const Tensor& tensor, const StoredSlice& slice,
                            Compared compared) const {
  const File& file = FileOf(tensor, slice);
  const bool fits = RangeFits(slice.offset, slice.size, file.size());
  const FileDiagnosis& diagnosis = files_->Diagnosis(slice.file);
  const bool is_used_unchecked = compared == Compared::kNo && slice.size > 0;
  if (diagnosis.error != FileError::kNone && (!fits || is_used_unchecked || diagnosis.is_certain)) {
    const std::string message =
        Describe(*catalog_, tensor, slice) + ": " + files_->DescribeError(slice.file);
    if (!fits) throw TruncatedError(message);
    throw CorruptionError(message);
  }
  if (fits) return;
  throw TruncatedError(file.path() + " has " + std::to_string(file.size()) + " bytes, but " +
                       Describe(*catalog_, tensor, slice) + " takes " + std::to_string(slice.size) +
                       " at offset " + std::to_string(slice.offset) + "; was the file truncated?");
}

std::string Describe(const Catalog& catalog, const Tensor& tensor, const StoredSlice& slice) {
  std::string text = "tensor " + EscapeBytes(tensor.name);
  if (slice.first_extent != StoredSlice::kWholeTensor) {
    text += ", slice " + ToString(catalog.BoxOf(tensor, slice));
  }
  return text;
}

std::vector<std::string> StorageWarnings(const Checkpoint& checkpoint) {
  const Catalog& catalog = checkpoint.catalog();
  std::vector<std::string> warnings = catalog.warnings;
  if (checkpoint.records() != nullptr)
    return warnings;                // a V1 file is a table, with other contents between its slices
  std::map<uint32_t, Stored> last;  // per file: the slice with the largest end
  for (const Stored& stored : InFileOrder(catalog)) {
    const auto [before, is_first] = last.try_emplace(stored.slice->file, stored);
    if (is_first) continue;
    const uint64_t end = before->second.slice->offset + before->second.slice->size;
    if (stored.slice->offset < end && warnings.size() < kMaxWarnings) {
      warnings.push_back(catalog.files[stored.slice->file] + ": " +
                         Describe(catalog, *before->second.tensor, *before->second.slice) +
                         " and " + Describe(catalog, *stored.tensor, *stored.slice) +
                         " share bytes from offset " + std::to_string(stored.slice->offset) +
                         " on");
    }
    if (stored.slice->offset + stored.slice->size > end) before->second = stored;
  }
  for (const auto& [file, stored] : last) {
    const uint64_t end = stored.slice->offset + stored.slice->size;
    const uint64_t size = SizeOrZero(checkpoint.files(), file);
    if (size > end && warnings.size() < kMaxWarnings) {
      warnings.push_back(catalog.files[file] + ": " + std::to_string(size - end) +
                         " bytes follow the last tensor");
    }
  }
  return warnings;
}

}  // namespace tensorbundle
