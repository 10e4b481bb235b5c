// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/data_files.h"

#include <cerrno>
#include <stdexcept>

#include "tensorbundle/base/error.h"

namespace tensorbundle {

bool IndexFile::WasReplaced() const {
  const std::optional<FileIdentity> now = File::Identify(path);
  return now && *now != identity;
}

struct DataFiles::Entry {
  std::atomic<const File*> open{nullptr};  // set last, when the file is known
  std::shared_ptr<const File> file;
  ForeignFile foreign;
  std::shared_ptr<const Mapping> for_views;
  std::shared_ptr<const Mapping> for_reading;
  std::string missing_reason;  // found once: it takes a look at the directory
  std::atomic<bool> is_doubtful{false};
  bool is_wanted = true;
};

DataFiles::DataFiles(const Catalog& catalog, IoMode mode, std::optional<IndexFile> index,
                     const std::vector<bool>* wanted)
    : catalog_(catalog),
      mode_(mode),
      index_(std::move(index)),
      size_(catalog.files.size()),
      entries_(new Entry[size_]) {
  for (uint32_t file = 0; file < size_; ++file) {
    entries_[file].is_wanted = wanted == nullptr || (*wanted)[file];
  }
  for (uint32_t file = 0; file < size_; ++file) {
    if (!entries_[file].is_wanted) continue;
    try {
      Open(file);
    } catch (const IOFailure& error) {
      // Whoever needs the file tries again, and is told. The process needs descriptors for that,
      // and for everything else that it does.
      if (error.error_number() != EMFILE && error.error_number() != ENFILE) continue;
      for (uint32_t other = file / 2; other < file; ++other) Close(other);
      break;
    } catch (const Error&) {
    }
  }
}

// Only while nobody else knows the file.
void DataFiles::Close(uint32_t file) {
  entries_[file].open.store(nullptr, std::memory_order_relaxed);
  entries_[file].file.reset();
}

DataFiles::~DataFiles() = default;

DataFiles::Entry& DataFiles::EntryOf(uint32_t file) const {
  if (file < size_ && entries_[file].is_wanted) return entries_[file];
  throw std::out_of_range("data file " + std::to_string(file) + " was not asked for at open");
}

void DataFiles::Open(uint32_t file) const {
  Entry& entry = entries_[file];
  const std::string& path = catalog_.files[file];
  entry.file = File::Open(path, mode_ == IoMode::kDirect ? ReadMode::kDirect : ReadMode::kBuffered);
  if (file < catalog_.file_ends.size()) {
    entry.foreign = Diagnose(*entry.file, catalog_.file_ends[file]);
  }
  entry.open.store(entry.file.get(), std::memory_order_release);
}

const File& DataFiles::Get(uint32_t file) const {
  Entry& entry = EntryOf(file);
  if (const File* open = entry.open.load(std::memory_order_acquire)) return *open;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (entry.open.load(std::memory_order_relaxed) == nullptr) {
    if (index_ && index_->WasReplaced()) {
      throw CorruptionError(catalog_.files[file] + " could not be opened with its index, and " +
                            index_->path + " has been replaced since: open the checkpoint again");
    }
    try {
      Open(file);
    } catch (const CheckpointNotFoundError&) {
      if (entry.missing_reason.empty()) entry.missing_reason = WhyMissing(catalog_.files[file]);
      throw CheckpointNotFoundError(entry.missing_reason, catalog_.files[file]);
    }
  }
  return *entry.open.load(std::memory_order_relaxed);
}

bool DataFiles::IsOpen(uint32_t file) const {
  return file < size_ && entries_[file].open.load(std::memory_order_acquire) != nullptr;
}

const ForeignFile& DataFiles::Foreign(uint32_t file) const {
  Get(file);
  return entries_[file].foreign;
}

DataFiles::Age DataFiles::AgeOf(uint32_t file) const {
  const Entry& entry = EntryOf(file);
  const File* open = entry.open.load(std::memory_order_acquire);
  if (open == nullptr || !index_) return Age::kOlder;
  const int64_t index_changed = index_->identity.changed_ns;
  // Whatever is done to a file later, its renaming included, moves the time of change.
  if (open->identity().changed_ns < index_changed) return Age::kOlder;
  const int64_t born = open->BornOrChanged();
  if (born == index_changed) return Age::kSameTick;
  return born > index_changed ? Age::kNewer : Age::kOlder;
}

bool DataFiles::IsDoubtful(uint32_t file) const {
  return EntryOf(file).is_doubtful.load(std::memory_order_relaxed);
}

void DataFiles::SetDoubtful(uint32_t file) { EntryOf(file).is_doubtful.store(true); }

std::shared_ptr<const Mapping> DataFiles::MapOnce(
    uint32_t file, std::shared_ptr<const Mapping> Entry::* place,
    std::shared_ptr<const Mapping> (*map)(const File&)) const {
  const File& opened = Get(file);
  if (mode_ == IoMode::kPread || mode_ == IoMode::kDirect) return nullptr;
  opened.CheckNotShrunk();
  Entry& entry = entries_[file];
  const std::lock_guard<std::mutex> lock(mutex_);
  if (entry.*place == nullptr) entry.*place = map(opened);
  return entry.*place;
}

std::shared_ptr<const Mapping> DataFiles::MapForViews(uint32_t file) const {
  return MapOnce(file, &Entry::for_views, &Mapping::Private);
}

std::shared_ptr<const Mapping> DataFiles::MapForReading(uint32_t file) const {
  return MapOnce(file, &Entry::for_reading, &Mapping::OfFile);
}

}  // namespace tensorbundle
