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

namespace tensorbundle {
namespace {

constexpr size_t kHeadSize = 512;
constexpr size_t kShortText = 200;   // bytes of a text that a message can quote
constexpr size_t kMaxNames = 5'000;  // of a directory; more are not looked through
constexpr size_t kMaxShown = 3;

// What a text is that stands where data should be, or null. `head` is in lower case.
const char* KindOfText(std::string_view head) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (head.starts_with(kByteOrderMark)) head.remove_prefix(kByteOrderMark.size());
  const size_t begin = head.find_first_not_of(" \t\r\n");
  head.remove_prefix(std::min(begin, head.size()));
  if (head.starts_with("version https://git-lfs")) {
    return "is a Git-LFS pointer, not the data: run 'git lfs pull' in its repository";
  }
  if (head.starts_with("<!doctype html") || head.starts_with("<html") ||
      head.starts_with("<head") || head.starts_with("<!--") || head.starts_with("<script")) {
    return "is an HTML page, not the data: the download went wrong";
  }
  if (head.starts_with("<?xml") || head.starts_with("<error>")) {
    return "is an XML document, not the data: the download went wrong, and it may say why";
  }
  return nullptr;
}

struct Signature {
  size_t offset;
  std::string_view bytes;
  const char* kind;
};

// Of archives, which are longer than the file that they hold or shorter.
constexpr Signature kArchives[] = {
    {0, std::string_view("\x1f\x8b\x08", 3),
     "is compressed with gzip: unpack it first, with gunzip or tar"},
    {0, "BZh9", "is compressed with bzip2: unpack it first, with bunzip2 or tar"},
    {0,
     std::string_view("\xfd"
                      "7zXZ\0",
                      6),
     "is compressed with xz: unpack it first, with unxz or tar"},
    {0, "\x28\xb5\x2f\xfd", "is compressed with Zstandard: unpack it first, with unzstd or tar"},
    {0, "7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first"},
    {0, "PK\x03\x04", "is a zip archive, as PyTorch and NumPy write them too, not the data"},
    {257, "ustar", "is a tar archive: unpack it first"},
};

const char* KindOfArchive(std::string_view head) {
  for (const Signature& signature : kArchives) {
    if (head.size() > signature.offset &&
        head.substr(signature.offset).starts_with(signature.bytes)) {
      return signature.kind;
    }
  }
  return nullptr;
}

// What a file that is too short is, by its beginning, or "".
std::string KindOfShortFile(std::string_view head, uint64_t size) {
  // A size, and a JSON object of that size.
  if (head.size() > 8 && head[8] == '{' && (head[9] == '"' || head[9] == '}')) {
    return "is a safetensors file, not the data";
  }
  if (head.starts_with("{\"")) return "is JSON text, not the data: the download went wrong";
  if (size > kShortText) return "";
  const auto is_printable = [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r'; };
  if (!std::all_of(head.begin(), head.end(), is_printable)) return "";
  head = head.substr(0, head.find_last_not_of(" \r\n") + 1);
  return head.empty() ? "" : "has nothing but the text " + EscapeBytes(head);
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

// "P" of "P.data-00000-of-00001", else "".
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

// Names in the directory that may be the file under another name: with something behind its own
// name, as downloads and copies get it; its checkpoint's name and ".data"; and data files that
// belong to no index.
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
    const bool is_spare = !other.empty() && names.count(std::string(other) + ".index") == 0;
    const bool is_longer = name.size() > wanted.size() && name.starts_with(wanted);
    const bool is_other_count = !other.empty() && other == prefix &&
                                name.substr(name.rfind('-')) != wanted.substr(wanted.rfind('-'));
    if (is_spare || is_longer || is_other_count || name == prefix + ".data") found.push_back(name);
  }
  return found;
}

}  // namespace

ForeignFile Diagnose(const File& file, uint64_t end) {
  if (file.size() == end) return {};
  const bool is_short = file.size() < end;
  if (file.size() == 0) {
    return {file.path() + " is empty, its stored slices end at byte " + std::to_string(end), true};
  }
  // A longer file may be data that begin so, with something behind them.
  const std::string head = Head(file);
  if (const char* kind = KindOfText(ToLower(head))) return {file.path() + " " + kind, is_short};
  if (const char* kind = KindOfArchive(head)) return {file.path() + " " + kind, false};
  if (!is_short) return {};
  if (const std::string kind = KindOfShortFile(head, file.size()); !kind.empty()) {
    return {file.path() + " " + kind, false};
  }
  return {file.path() + " has " + std::to_string(file.size()) +
              " bytes, its stored slices end at " + std::to_string(end) +
              ": it was cut off, or belongs to another checkpoint",
          false};
}

std::string WhyMissing(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::read_symlink(path, error);
  if (!error) {
    return "the data file " + path + " is a symbolic link to " + EscapeBytes(target.string()) +
           ", which does not exist";
  }
  const std::vector<std::string> names = NamesLike(path);
  std::string text = "the data file " + path + " is missing";
  if (names.empty()) return text + "; was the checkpoint copied in part?";
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
