// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/data_files.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/fork_lock.h"

namespace tensorbundle {
namespace {

constexpr size_t kHeadSize = 512;
constexpr size_t kMinText = 8;       // bytes: fewer are not likely to be an answer of a server
constexpr size_t kShortText = 200;   // bytes of a text that a message can quote
constexpr size_t kMaxNames = 5'000;  // names of a directory that are compared
constexpr size_t kMaxShown = 3;
constexpr char kMissing[] = " is missing; was the checkpoint copied in part?";

// Recognizes the text formats that are found in place of data files. `head` is in lower case.
FileError ErrorOfText(std::string_view head) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (head.starts_with(kByteOrderMark)) head.remove_prefix(kByteOrderMark.size());
  const size_t begin = head.find_first_not_of(" \t\r\n");
  head.remove_prefix(std::min(begin, head.size()));
  if (head.starts_with("version https://git-lfs")) return FileError::kGitLfsPointer;
  if (head.starts_with("<!doctype html") || head.starts_with("<html") ||
      head.starts_with("<head") || head.starts_with("<!--") || head.starts_with("<script")) {
    return FileError::kHtmlPage;
  }
  if (head.starts_with("<?xml") || head.starts_with("<error>")) return FileError::kXmlDocument;
  return FileError::kNone;
}

struct Signature {
  size_t offset;
  std::string_view bytes;
  FileError error;
};

// An archive of a file can be longer or shorter than the file.
constexpr Signature kArchives[] = {
    {0, std::string_view("\x1f\x8b\x08", 3), FileError::kGzip},
    {0, "BZh9", FileError::kBzip2},
    {0, std::string_view("\xfd\x37zXZ\0", 6), FileError::kXz},
    {0, "\x28\xb5\x2f\xfd", FileError::kZstandard},
    {0, "7z\xbc\xaf\x27\x1c", FileError::kSevenZip},
    {0, "PK\x03\x04", FileError::kZip},
    {257, "ustar", FileError::kTar},
};

FileError ErrorOfArchive(std::string_view head) {
  for (const Signature& signature : kArchives) {
    if (head.size() > signature.offset &&
        head.substr(signature.offset).starts_with(signature.bytes)) {
      return signature.error;
    }
  }
  return FileError::kNone;
}

// Recognizes what a file that is too short contains.
FileError ErrorOfShortFile(std::string_view head, uint64_t size) {
  // The size of a JSON object, in 8 bytes, and the object.
  if (head.size() > 9 && head[8] == '{' && (head[9] == '"' || head[9] == '}')) {
    return FileError::kSafetensors;
  }
  if (head.starts_with("{\"")) return FileError::kJson;
  const auto is_printable = [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r'; };
  const bool is_text = std::all_of(head.begin(), head.end(), is_printable) &&
                       head.find_first_not_of(" \r\n") != std::string_view::npos;
  return is_text && size >= kMinText && size <= kShortText ? FileError::kShortText
                                                           : FileError::kTooShort;
}

std::string Head(const File& file) {
  std::string head(std::min<uint64_t>(kHeadSize, file.size()), '\0');
  try {
    file.ReadAt(0, {reinterpret_cast<uint8_t*>(head.data()), head.size()});
  } catch (const Error&) {
    return "";
  }
  return head;
}

std::string ToLower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// Returns "P" for "P.data-00000-of-00001", and "" for other names.
std::string_view PrefixOf(std::string_view name) {
  constexpr std::string_view kPattern = ".data-00000-of-00001";
  if (name.size() <= kPattern.size()) return {};
  const std::string_view end = name.substr(name.size() - kPattern.size());
  const bool matches =
      std::equal(end.begin(), end.end(), kPattern.begin(), [](char found, char wanted) {
        return wanted == '0' || wanted == '1' ? found >= '0' && found <= '9' : found == wanted;
      });
  return matches ? name.substr(0, name.size() - kPattern.size()) : std::string_view();
}

ReadMode ReadModeOf(IoMode mode) {
  return mode == IoMode::kDirect ? ReadMode::kDirect : ReadMode::kBuffered;
}

// Returns the names in the directory that may be the file under another name: its own name with a
// suffix, as downloads and copies get it; the name of its checkpoint and ".data"; the same data
// file of another number of shards; and data files without an index.
std::vector<std::string> NamesLike(const std::filesystem::path& path) {
  std::set<std::string> names;
  std::error_code error;
  const std::filesystem::path directory = path.has_parent_path() ? path.parent_path() : ".";
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    names.insert(entry->path().filename().string());
    if (names.size() == kMaxNames) break;
  }
  const std::string wanted = path.filename().string();
  const std::string prefix(PrefixOf(wanted));
  std::vector<std::string> found;
  for (const std::string& name : names) {
    const std::string_view other = PrefixOf(name);
    const bool has_no_index = !other.empty() && names.count(std::string(other) + ".index") == 0;
    const bool is_longer = name.size() > wanted.size() && name.starts_with(wanted);
    const bool is_other_count = !other.empty() && other == prefix &&
                                name.substr(name.rfind('-')) != wanted.substr(wanted.rfind('-'));
    if (has_no_index || is_longer || is_other_count || name == prefix + ".data")
      found.push_back(name);
  }
  return found;
}

}  // namespace

FileDiagnosis Diagnose(const File& file, uint64_t end) {
  if (file.size() == end) return {};
  if (file.size() == 0) return {FileError::kEmpty, true};
  // A longer file may be the data with other bytes appended, even if it starts like a text.
  const bool is_short = file.size() < end;
  const std::string head = Head(file);
  if (const FileError error = ErrorOfText(ToLower(head)); error != FileError::kNone) {
    return {error, is_short};
  }
  if (const FileError error = ErrorOfArchive(head); error != FileError::kNone) {
    return {error, false};
  }
  return {is_short ? ErrorOfShortFile(head, file.size()) : FileError::kNone, false};
}

std::string DescribeFileError(const File& file, FileError error, uint64_t end) {
  const std::string& path = file.path();
  switch (error) {
    case FileError::kNone:
      return "";
    case FileError::kEmpty:
      return path + " is empty, its stored slices end at byte " + std::to_string(end);
    case FileError::kTooShort:
      return path + " has " + std::to_string(file.size()) + " bytes, its stored slices end at " +
             std::to_string(end) + ": it was cut off, or belongs to another checkpoint";
    case FileError::kGitLfsPointer:
      return path + " is a Git-LFS pointer, not the data: run 'git lfs pull' in its repository";
    case FileError::kHtmlPage:
      return path + " is an HTML page, not the data: the download went wrong";
    case FileError::kXmlDocument:
      return path +
             " is an XML document, not the data: the download went wrong, and it may say why";
    case FileError::kGzip:
      return path + " is compressed with gzip: unpack it first, with gunzip or tar";
    case FileError::kBzip2:
      return path + " is compressed with bzip2: unpack it first, with bunzip2 or tar";
    case FileError::kXz:
      return path + " is compressed with xz: unpack it first, with unxz or tar";
    case FileError::kZstandard:
      return path + " is compressed with Zstandard: unpack it first, with unzstd or tar";
    case FileError::kSevenZip:
      return path + " is a 7z archive: unpack it first";
    case FileError::kZip:
      return path + " is a zip archive, as PyTorch and NumPy write them too, not the data";
    case FileError::kTar:
      return path + " is a tar archive: unpack it first";
    case FileError::kSafetensors:
      return path + " is a safetensors file, not the data";
    case FileError::kJson:
      return path + " is JSON text, not the data: the download went wrong";
    case FileError::kShortText: {
      std::string text = Head(file);
      text.resize(text.find_last_not_of(" \r\n") + 1);
      return path + " has nothing but the text " + EscapeBytes(text);
    }
  }
  return "";
}

std::string DescribeMissingFile(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::read_symlink(path, error);
  if (!error) {
    return "the data file " + path + " is a symbolic link to " + EscapeBytes(target.string()) +
           ", which does not exist";
  }
  const std::vector<std::string> names = NamesLike(path);
  std::string text = "the data file " + path + " is missing";
  if (names.empty()) return "the data file " + path + kMissing;
  text += "; ";
  for (size_t i = 0; i < std::min(names.size(), kMaxShown); ++i) {
    text += (i == 0 ? "" : ", ") + EscapeBytes(names[i]);
  }
  if (names.size() > kMaxShown)
    text += " and " + std::to_string(names.size() - kMaxShown) + " more";
  return text + " in the same directory may be it under another name";
}

bool IndexFile::WasReplaced() const {
  const std::optional<FileIdentity> now = File::Identify(path);
  return now && *now != identity;
}

struct DataFiles::Entry {
  std::atomic<const File*> open{nullptr};  // set after `file` and `diagnosis`
  std::shared_ptr<const File> file;
  FileDiagnosis diagnosis;
  SharedMapping for_views{nullptr};
  SharedMapping for_reading{nullptr};
  std::string missing_message;  // composed once, because it reads the directory
  std::atomic<bool> is_doubtful{false};
  bool is_wanted = true;

  ~Entry() {
    delete for_views.load(std::memory_order_relaxed);
    delete for_reading.load(std::memory_order_relaxed);
  }
};

DataFiles::DataFiles(const Catalog& catalog, IoMode mode, std::optional<IndexFile> index,
                     const std::vector<bool>* wanted, FileOpener opener)
    : catalog_(catalog),
      mode_(mode),
      opener_(std::move(opener)),
      index_(std::move(index)),
      size_(catalog.files.size()),
      entries_(new Entry[size_]) {
  for (uint32_t file = 0; file < size_; ++file) {
    entries_[file].is_wanted = wanted == nullptr || (*wanted)[file];
  }
  for (uint32_t file = 0; !opener_ && file < size_; ++file) {
    if (!entries_[file].is_wanted) continue;
    try {
      Open(file);
    } catch (const IOFailure& error) {
      // Get() tries again and reports the error. If the process has no descriptors left, closes
      // half of the files, because Get() and the rest of the process need some.
      if (error.error_number() != EMFILE && error.error_number() != ENFILE) continue;
      for (uint32_t other = file / 2; other < file; ++other) Close(other);
      break;
    } catch (const Error&) {
    }
  }
}

// Requires: no other thread uses the file yet.
void DataFiles::Close(uint32_t file) {
  entries_[file].open.store(nullptr, std::memory_order_relaxed);
  entries_[file].file.reset();
}

DataFiles::~DataFiles() = default;

DataFiles::Entry& DataFiles::EntryOf(uint32_t file) const {
  if (file < size_ && entries_[file].is_wanted) return entries_[file];
  throw std::out_of_range("data file " + std::to_string(file) + " was not asked for at open");
}

FileDiagnosis DataFiles::DiagnoseFile(uint32_t file, const File& opened) const {
  if (file >= catalog_.file_ends.size()) return {};
  return Diagnose(opened, catalog_.file_ends[file]);
}

void DataFiles::Open(uint32_t file) const {
  Entry& entry = entries_[file];
  const std::string& path = catalog_.files[file];
  entry.file = File::Open(path, ReadModeOf(mode_));
  entry.diagnosis = DiagnoseFile(file, *entry.file);
  entry.open.store(entry.file.get(), std::memory_order_release);
}

const File& DataFiles::Get(uint32_t file) const {
  const File* const open = EntryOf(file).open.load(std::memory_order_acquire);
  return open != nullptr ? *open : OpenOnce(file);
}

// No lock is held while a file is opened: the opener may wait for the caller's lock (Python's GIL),
// and a child of fork(2) for a thread of its parent. If several threads open a file at the same
// time, all use the file of the first that succeeds.
const File& DataFiles::OpenOnce(uint32_t file) const {
  Entry& entry = entries_[file];
  const std::string& path = catalog_.files[file];
  if (!opener_ && index_ && index_->WasReplaced()) {
    throw CorruptionError(path + " could not be opened with its index, and " + index_->path +
                          " has been replaced since: open the checkpoint again");
  }
  std::shared_ptr<const File> opened;
  try {
    opened = opener_ ? opener_(path, ReadModeOf(mode_)) : File::Open(path, ReadModeOf(mode_));
  } catch (const CheckpointNotFoundError&) {
    throw CheckpointNotFoundError(MissingMessage(file), path);
  }
  const FileDiagnosis diagnosis = DiagnoseFile(file, *opened);
  const ForkLock lock;
  if (entry.open.load(std::memory_order_relaxed) == nullptr) {
    entry.file.swap(opened);
    entry.diagnosis = diagnosis;
    entry.open.store(entry.file.get(), std::memory_order_release);
  }
  return *entry.file;
}

std::string DataFiles::MissingMessage(uint32_t file) const {
  const std::string& path = catalog_.files[file];
  if (opener_) return "the data file " + path + kMissing;
  std::string& known = entries_[file].missing_message;
  {
    const ForkLock lock;
    if (!known.empty()) return known;
  }
  std::string message = DescribeMissingFile(path);
  const ForkLock lock;
  if (known.empty()) known.swap(message);
  return known;
}

std::string DataFiles::RewrittenFile() const {
  for (size_t i = 0; i < size_; ++i) {
    const File* const open = entries_[i].open.load(std::memory_order_acquire);
    if (open != nullptr && open->WasRewritten()) return open->path();
  }
  return {};
}

bool DataFiles::IsOpen(uint32_t file) const {
  return file < size_ && entries_[file].open.load(std::memory_order_acquire) != nullptr;
}

const FileDiagnosis& DataFiles::Diagnosis(uint32_t file) const {
  Get(file);
  return entries_[file].diagnosis;
}

std::string DataFiles::DescribeError(uint32_t file) const {
  const FileError error = Diagnosis(file).error;
  if (error == FileError::kNone) return "";
  return DescribeFileError(Get(file), error, catalog_.file_ends[file]);
}

DataFiles::Age DataFiles::AgeOf(uint32_t file) const {
  const Entry& entry = EntryOf(file);
  const File* open = entry.open.load(std::memory_order_acquire);
  if (open == nullptr || !index_) return Age::kOlder;
  const int64_t index_changed = index_->identity.changed_ns;
  // Every later operation on a file, also a renaming, updates its time of change.
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
    uint32_t file, SharedMapping Entry::* place,
    std::shared_ptr<const Mapping> (*map)(const File&)) const {
  const File& opened = Get(file);
  if (mode_ == IoMode::kPread || mode_ == IoMode::kDirect) return nullptr;
  if (opened.descriptor() < 0) return nullptr;
  opened.CheckNotShrunk();
  SharedMapping& shared = entries_[file].*place;
  if (const auto* found = shared.load(std::memory_order_acquire)) return *found;
  auto made = std::make_unique<const std::shared_ptr<const Mapping>>(map(opened));
  const std::shared_ptr<const Mapping>* first = nullptr;
  if (!shared.compare_exchange_strong(first, made.get(), std::memory_order_acq_rel)) return *first;
  return *made.release();  // owned by the entry
}

std::shared_ptr<const Mapping> DataFiles::MapForViews(uint32_t file) const {
  return MapOnce(file, &Entry::for_views, &Mapping::Private);
}

std::shared_ptr<const Mapping> DataFiles::MapForReading(uint32_t file) const {
  return MapOnce(file, &Entry::for_reading, &Mapping::OfFile);
}

}  // namespace tensorbundle
