// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/checkpoint_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {
namespace {

constexpr int kMaxClaims = 100;

[[noreturn]] void ThrowExists(const std::string& path, const char* advice) {
  throw IOFailure("will not replace " + path + "; " + advice, path, EEXIST);
}

// Whether a path exists, without following links. Throws: IOFailure if the system does not tell.
bool Exists(const std::string& path, struct stat* status) {
  if (::lstat(path.c_str(), status) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) ThrowSystemError("stat", path);
  return false;
}

// Removes at least five digits from the start of the text. Returns whether it has them.
bool TakeNumber(std::string_view* text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto end = std::find_if_not(text->begin(), text->end(), is_digit);
  const auto size = static_cast<size_t>(end - text->begin());
  text->remove_prefix(size);
  return size >= 5;
}

// Returns the length of "<base>.data-SSSSS-of-NNNNN" or "<base>.index" at the start of a name, or
// 0.
size_t LengthOfCheckpointName(std::string_view name, std::string_view base, bool* is_index) {
  const size_t size = name.size();
  if (!name.starts_with(base)) return 0;
  name.remove_prefix(base.size());
  *is_index = name.starts_with(".index");
  if (*is_index) return base.size() + std::string_view(".index").size();
  constexpr std::string_view kData = ".data-";
  constexpr std::string_view kOf = "-of-";
  if (!name.starts_with(kData)) return 0;
  name.remove_prefix(kData.size());
  if (!TakeNumber(&name) || !name.starts_with(kOf)) return 0;
  name.remove_prefix(kOf.size());
  return TakeNumber(&name) ? size - name.size() : 0;
}

// A descriptor that is closed by the destructor. Open() may be called once.
class Descriptor {
 public:
  Descriptor() = default;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int Open(const std::string& path, int flags) {
    number_ = Uninterrupted([&] { return ::open(path.c_str(), flags); });
    return number_;
  }

 private:
  int number_ = -1;
};

}  // namespace

// The names in the directory that belong to the prefix.
struct CheckpointFiles::Names {
  std::vector<std::string> data;                           // final names of data files
  std::map<uint64_t, std::vector<std::string>> temporary;  // of our writers, by their numbers
};

// Returns the first data file with this number of shards in its name.
std::vector<std::string>::const_iterator CheckpointFiles::FindDataFile(const Names& names,
                                                                       int32_t num_shards) {
  const std::string name = DataFilePath("", 0, num_shards);
  const std::string_view ending = std::string_view(name).substr(name.rfind("-of-"));
  return std::find_if(names.data.begin(), names.data.end(),
                      [&](const std::string& each) { return each.ends_with(ending); });
}

CheckpointFiles::CheckpointFiles(std::string prefix, int32_t num_shards, bool overwrite)
    : prefix_(std::move(prefix)),
      directory_path_(prefix_.substr(0, prefix_.rfind('/') + 1)),
      base_(prefix_.substr(directory_path_.size())),
      num_shards_(num_shards),
      overwrite_(overwrite),
      number_(0),
      data_files_(static_cast<size_t>(num_shards)) {
  Names names = ListNames();
  RemoveLeftovers(&names);
  CheckDestination(names);
  directory_ = AtomicDirectory::For(prefix_);
  Claim();
}

CheckpointFiles::~CheckpointFiles() {
  if (lock_ >= 0) ::close(lock_);
}

std::string CheckpointFiles::InDirectory(const std::string& name) const {
  return directory_path_ + name;
}

CheckpointFiles::Names CheckpointFiles::ListNames() const {
  Names names;
  const std::string path = directory_path_.empty() ? "." : directory_path_;
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) {
    // A directory that must not be listed may still be written: Publish() replaces no file.
    if (errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == EPERM) return names;
    ThrowSystemError("list the directory", path);
  }
  const auto next = [&] {
    errno = 0;  // readdir() returns null at the end too
    const dirent* entry = ::readdir(directory);
    if (entry == nullptr && errno != 0) ThrowSystemError("list the directory", path);
    return entry;
  };
  try {
    while (const dirent* entry = next()) {
      const std::string_view name = entry->d_name;
      bool is_index = false;
      const size_t length = LengthOfCheckpointName(name, base_, &is_index);
      if (length == 0) continue;
      if (length == name.size()) {
        if (!is_index) names.data.emplace_back(name);
      } else if (const auto number = AtomicFile::NumberOf(name, name.substr(0, length))) {
        // The index comes last: it is removed last, because its lock tells that the writer is dead.
        std::vector<std::string>& group = names.temporary[*number];
        group.insert(is_index ? group.end() : group.begin(), std::string(name));
      }
    }
  } catch (...) {
    ::closedir(directory);
    throw;
  }
  ::closedir(directory);
  return names;
}

// Removes the files of writers that died. If one of them died while it published a new checkpoint,
// removes also the data files that it named: no index refers to them.
void CheckpointFiles::RemoveLeftovers(Names* names) const {
  struct stat status{};
  const bool has_index = Exists(prefix_ + ".index", &status);
  bool was_publishing = false;
  bool is_claimed = false;                         // by a writer that lives
  std::vector<std::unique_ptr<Descriptor>> locks;  // of the dead, until all is removed
  std::vector<const std::vector<std::string>*> dead;
  for (const auto& [number, group] : names->temporary) {
    bool is_index = false;
    LengthOfCheckpointName(group.back(), base_, &is_index);
    if (is_index) {  // data files without one are those of a dead writer
      const std::string path = InDirectory(group.back());
      // Opened when its owner exists, so that a failed allocation leaks no descriptor.
      locks.push_back(std::make_unique<Descriptor>());
      const int lock = locks.back()->Open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
      if (lock < 0 || ::flock(lock, LOCK_EX | LOCK_NB) != 0) {
        is_claimed = true;
        continue;
      }
      was_publishing |= ::fstat(lock, &status) == 0 && status.st_size > 0;
    }
    dead.push_back(&group);
  }
  if (was_publishing && !has_index && !is_claimed) {
    for (const std::string& name : names->data) ::unlink(InDirectory(name).c_str());
    names->data.clear();
  }
  for (const std::vector<std::string>* group : dead) {
    for (const std::string& name : *group) ::unlink(InDirectory(name).c_str());
  }
}

void CheckpointFiles::CheckDestination(const Names& names) const {
  struct stat status{};
  if (Exists(prefix_, &status) && S_ISREG(status.st_mode)) {
    ThrowExists(prefix_, "remove it or choose another name");
  }
  const std::string index = prefix_ + ".index";
  if (Exists(index, &status)) {
    if (S_ISDIR(status.st_mode)) ThrowExists(index, "it is a directory");
    if (!overwrite_) ThrowExists(index, "remove it or choose another name");
  }
  if (overwrite_) return;
  const auto found = FindDataFile(names, num_shards_);
  if (found != names.data.end()) {
    ThrowExists(InDirectory(*found), "remove it or choose another name");
  }
}

void CheckpointFiles::Claim() {
  for (int attempt = 1; attempt <= kMaxClaims; ++attempt) {
    number_ = AtomicFile::RandomNumber();
    index_ = AtomicFile::Create(prefix_ + ".index", number_);
    // A lock on a descriptor of its own, because Finish() closes that of the file.
    lock_ =
        Uninterrupted([&] { return ::open(index_->temporary().c_str(), O_RDONLY | O_CLOEXEC); });
    if (lock_ >= 0) {
      // File systems without locks: leftovers stay. Another writer may have taken the new file for
      // a leftover: then it has no name any more.
      (void)::flock(lock_, LOCK_EX | LOCK_NB);
      struct stat status{};
      const bool failed = ::fstat(lock_, &status) != 0;
      if (!failed && status.st_nlink > 0) return;
      const int error = errno;
      ::close(std::exchange(lock_, -1));
      errno = error;
      if (failed) ThrowSystemError("stat", index_->temporary());
    } else if (errno != ENOENT) {
      ThrowSystemError("open", index_->temporary());
    }
  }
  errno = EBUSY;
  ThrowSystemError("create", prefix_ + ".index");
}

AtomicFile& CheckpointFiles::DataFile(int32_t shard) {
  std::unique_ptr<AtomicFile>& file = data_files_.at(static_cast<size_t>(shard));
  if (file == nullptr) {
    file = AtomicFile::Create(DataFilePath(prefix_, shard, num_shards_), number_);
  }
  return *file;
}

// Returns the first number from num_shards() on that no data file has in its name.
int32_t CheckpointFiles::FreeNumberOfShards(const Names& names) const {
  int32_t number = num_shards_;
  while (FindDataFile(names, number) != names.data.end()) ++number;
  return number;
}

void CheckpointFiles::Publish(const IndexOf& index_of) {
  const Names names = ListNames();
  const int32_t num_shards = overwrite_ ? FreeNumberOfShards(names) : num_shards_;
  for (const std::unique_ptr<AtomicFile>& file : data_files_) {
    if (file != nullptr) file->Finish();
  }
  index_->WriteAt(0, AsBytes(index_of(num_shards)));
  index_->Finish();
  for (size_t shard = 0; shard < data_files_.size(); ++shard) {
    if (data_files_[shard] == nullptr) continue;
    data_files_[shard]->PublishAs(DataFilePath(prefix_, static_cast<int32_t>(shard), num_shards));
  }
  directory_->Sync();
  if (overwrite_) {
    PublishReplacing(names, num_shards, index_of);
    return;
  }
  index_->Publish();
  directory_->Sync();
  index_->Keep();
  for (const std::unique_ptr<AtomicFile>& file : data_files_) {
    if (file != nullptr) file->Keep();
  }
  directory_->Keep();
}

void CheckpointFiles::PublishReplacing(const Names& names, int32_t num_shards,
                                       const IndexOf& index_of) {
  index_->Replace();
  // From here on, the checkpoint is the new one.
  index_->Keep();
  for (const std::unique_ptr<AtomicFile>& file : data_files_) {
    if (file != nullptr) file->Keep();
  }
  directory_->Keep();
  directory_->Sync();
  for (const std::string& name : names.data) ::unlink(InDirectory(name).c_str());
  if (num_shards != num_shards_) GiveUsualNames(index_of);
}

// Gives the data files their usual names. If that fails, they keep those that they have: the
// checkpoint is complete under both.
void CheckpointFiles::GiveUsualNames(const IndexOf& index_of) {
  std::vector<std::string> added;
  try {
    for (size_t i = 0; i < data_files_.size(); ++i) {
      if (data_files_[i] == nullptr) continue;
      const std::string path = DataFilePath(prefix_, static_cast<int32_t>(i), num_shards_);
      if (::link(data_files_[i]->path().c_str(), path.c_str()) != 0)
        ThrowSystemError("create", path);
      added.push_back(path);
    }
    directory_->Sync();
    const std::unique_ptr<AtomicFile> index = AtomicFile::Create(prefix_ + ".index", number_);
    index->WriteAt(0, AsBytes(index_of(num_shards_)));
    index->Finish();
    index->Replace();
    index->Keep();
    added.clear();
    directory_->Sync();
    for (const std::unique_ptr<AtomicFile>& file : data_files_) {
      if (file != nullptr) ::unlink(file->path().c_str());
    }
  } catch (const std::exception&) {
    for (const std::string& path : added) ::unlink(path.c_str());
  }
}

}  // namespace tensorbundle
