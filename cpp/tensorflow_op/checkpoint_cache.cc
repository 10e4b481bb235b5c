// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/checkpoint_cache.h"

#include <glob.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/v1/v1_checkpoint.h"
#include "tensorflow_op/remote_files.h"
#include "tensorflow_op/status.h"

namespace tensorbundle::op {
namespace {

// A parsed index is a few times as large as its file. Training reads one or two checkpoints.
constexpr uint64_t kIndexCapacity = uint64_t{64} << 20;
constexpr uint64_t kBytesPerTensor = sizeof(Tensor) + sizeof(StoredSlice) + 64;

constexpr uint64_t kMaxOpenV1 = 2;

// Retries if the checkpoint is replaced while it is opened.
constexpr int kMaxAttempts = 20;
constexpr std::chrono::milliseconds kRetryDelay(1);

std::shared_ptr<const BundleIndex> IndexOf(const std::string& prefix, const FileIdentity& found) {
  static SharedCache<BundleIndex> cache(kIndexCapacity);
  return cache.Get({prefix, {found}}, [&]() -> SharedCache<BundleIndex>::Computed {
    auto index = std::make_shared<const BundleIndex>(ReadBundleIndex(prefix));
    return {index, found.size + index->catalog.tensors.size() * kBytesPerTensor};
  });
}

[[noreturn]] void ThrowNoFiles(const std::string& prefix) {
  throw OpError(Code::kNotFound,
                "Unsuccessful TensorSliceReader constructor: Failed to find "
                "any matching files for " +
                    prefix);
}

// Expands "<name>-?????-of-00002" to two paths. Any other prefix is the path of a single file.
std::vector<std::string> V1Files(const std::string& prefix) {
  constexpr std::string_view kPattern =
      "-?????"
      "-of-";  // split: together they contain a trigraph
  constexpr size_t kDigits = 5;
  const size_t at = prefix.rfind(kPattern);
  if (at == std::string::npos || prefix.size() != at + kPattern.size() + kDigits) return {prefix};
  int count = 0;
  for (const char digit : prefix.substr(at + kPattern.size())) {
    if (std::isdigit(static_cast<unsigned char>(digit)) == 0) return {prefix};
    count = count * 10 + (digit - '0');
  }
  if (count == 0) return {prefix};
  std::vector<std::string> files;
  for (int shard = 0; shard < count; ++shard) {
    std::string number = std::to_string(shard);
    number.insert(0, kDigits - number.size(), '0');
    files.push_back(prefix.substr(0, at + 1) + number + prefix.substr(at + 1 + kDigits));
  }
  return files;
}

// Returns the files that match a pattern, sorted. TensorFlow's patterns are those of glob(3).
std::vector<std::string> MatchingFiles(const std::string& pattern) {
  glob_t found{};
  std::vector<std::string> files;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  ::globfree(&found);
  return files;
}

// Returns nothing if a file does not exist.
std::optional<std::vector<FileIdentity>> IdentifyAll(const std::vector<std::string>& files) {
  std::vector<FileIdentity> identities;
  for (const std::string& path : files) {
    const std::optional<FileIdentity> found = File::Identify(path);
    if (!found) return std::nullopt;
    identities.push_back(*found);
  }
  return identities;
}

std::shared_ptr<const Checkpoint> V1Checkpoint(const std::string& prefix, IoMode mode) {
  static SharedCache<Checkpoint> cache(kMaxOpenV1);
  std::vector<std::string> files = V1Files(prefix);
  std::optional<std::vector<FileIdentity>> identities = IdentifyAll(files);
  if (!identities) {
    files = MatchingFiles(prefix);
    if (!files.empty()) identities = IdentifyAll(files);
  }
  if (!identities) ThrowNoFiles(prefix);
  const CacheKey key{prefix + (mode == IoMode::kPread ? " read" : " mapped"), *identities};
  return cache.Get(key,
                   [&]() -> SharedCache<Checkpoint>::Computed { return {OpenV1(files, mode), 1}; });
}

// Throws for the first name that is not found, else for all types that differ, as RestoreV2 does.
std::vector<const Tensor*> FindTensors(const Catalog& catalog, std::span<const std::string> names,
                                       std::span<const TypeNumber> types) {
  std::vector<const Tensor*> tensors;
  std::string mismatches;
  for (size_t i = 0; i < names.size(); ++i) {
    const size_t index = catalog.Find(names[i]);
    if (index == Catalog::kNotFound) {
      throw OpError(Code::kNotFound, "Key " + names[i] + " not found in checkpoint");
    }
    tensors.push_back(&catalog.tensors[index]);
    const auto stored = static_cast<TypeNumber>(tensors.back()->dtype);
    if (stored == types[i]) continue;
    if (!mismatches.empty()) mismatches += '\n';
    mismatches += "tensor_name = " + names[i] + "; expected dtype " + TypeText(types[i]) +
                  " does not equal original dtype " + TypeText(stored);
  }
  if (!mismatches.empty()) throw OpError(Code::kInvalidArgument, mismatches);
  return tensors;
}

// The checkpoints that ops are reading by mappings now. Ops that start meanwhile, such as those of
// a variable's other partitions, share the mappings: each new mapping of a table would cost the
// page faults that map its pages, and their removal. Keeps no checkpoint open.
// Threads: safe.
class MappedCheckpoints {
 public:
  // Returns a checkpoint of the same index that has the data files of the tensors open, or null.
  std::shared_ptr<const Checkpoint> Find(const std::shared_ptr<const BundleIndex>& index,
                                         std::span<const Tensor* const> tensors) {
    const std::vector<uint32_t> wanted = FilesOf(*index, tensors);
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(entries_, [](const Entry& entry) { return entry.checkpoint.expired(); });
    for (const Entry& entry : entries_) {
      if (entry.index != index.get() || entry.files != wanted) continue;
      std::shared_ptr<const Checkpoint> checkpoint = entry.checkpoint.lock();
      if (checkpoint != nullptr && AreCurrent(*checkpoint, wanted)) return checkpoint;
    }
    return nullptr;
  }

  void Add(const std::shared_ptr<const BundleIndex>& index, std::span<const Tensor* const> tensors,
           const std::shared_ptr<const Checkpoint>& checkpoint) {
    std::vector<uint32_t> files = FilesOf(*index, tensors);
    const std::lock_guard<std::mutex> lock(mutex_);
    entries_.push_back({index.get(), std::move(files), checkpoint});
  }

 private:
  struct Entry {
    const BundleIndex* index;  // the checkpoint keeps it alive
    std::vector<uint32_t> files;
    std::weak_ptr<const Checkpoint> checkpoint;
  };

  static std::vector<uint32_t> FilesOf(const BundleIndex& index,
                                       std::span<const Tensor* const> tensors) {
    std::vector<uint32_t> files;
    for (const Tensor* tensor : tensors) {
      for (const StoredSlice& slice : index.catalog.Slices(*tensor)) files.push_back(slice.file);
    }
    std::sort(files.begin(), files.end());
    files.erase(std::unique(files.begin(), files.end()), files.end());
    return files;
  }

  // Whether the paths still have the files that are open, unchanged.
  static bool AreCurrent(const Checkpoint& checkpoint, const std::vector<uint32_t>& files) {
    return std::all_of(files.begin(), files.end(), [&](uint32_t file) {
      if (!checkpoint.files().IsOpen(file)) return false;
      const File& open = checkpoint.files().Get(file);
      return !open.WasJustWritten() && File::Identify(open.path()) == open.identity();
    });
  }

  std::mutex mutex_;
  std::vector<Entry> entries_;  // guarded by mutex_
};

// Returns null if the index was replaced while the files were opened.
std::shared_ptr<const Checkpoint> OpenFiles(const std::shared_ptr<const BundleIndex>& index,
                                            std::span<const Tensor* const> tensors, IoMode mode) {
  if (mode != IoMode::kAuto) return Checkpoint::OpenTensors(index, tensors, mode);
  static MappedCheckpoints mapped;
  std::shared_ptr<const Checkpoint> checkpoint = mapped.Find(index, tensors);
  if (checkpoint != nullptr) return checkpoint;
  checkpoint = Checkpoint::OpenTensors(index, tensors, mode);
  if (checkpoint != nullptr) mapped.Add(index, tensors, checkpoint);
  return checkpoint;
}

// Returns nullopt if the index was replaced while the files were opened.
std::optional<OpenedTensors> TryOpen(const std::string& prefix, std::span<const std::string> names,
                                     std::span<const TypeNumber> types, IoMode mode) {
  const std::optional<FileIdentity> index_file = File::Identify(prefix + ".index");
  if (!index_file) {
    std::shared_ptr<const Checkpoint> checkpoint = V1Checkpoint(prefix, mode);
    std::vector<const Tensor*> tensors = FindTensors(checkpoint->catalog(), names, types);
    return OpenedTensors{.checkpoint = std::move(checkpoint), .tensors = std::move(tensors)};
  }
  const std::shared_ptr<const BundleIndex> index = IndexOf(prefix, *index_file);
  std::vector<const Tensor*> tensors = FindTensors(index->catalog, names, types);
  std::shared_ptr<const Checkpoint> checkpoint = OpenFiles(index, tensors, mode);
  if (checkpoint == nullptr) return std::nullopt;
  return OpenedTensors{.checkpoint = std::move(checkpoint), .tensors = std::move(tensors)};
}

// Returns null if the path has no such file. Sets `*failure` if that is not certain.
std::shared_ptr<const File> TryOpenRemoteIndex(const std::string& prefix,
                                               std::optional<OpError>* failure) {
  try {
    return OpenIndexFile(prefix, &OpenRemote);
  } catch (const OpError& error) {
    if (error.code() != Code::kNotFound) *failure = error;
    return nullptr;
  }
}

std::shared_ptr<const Checkpoint> OpenRemoteV1(const std::string& prefix,
                                               const std::optional<OpError>& index_failure) {
  std::vector<std::string> files;
  try {
    files = MatchRemote(prefix);
  } catch (const OpError& error) {
    throw OpError(Code::kInvalidArgument,
                  "Unsuccessful TensorSliceReader constructor: Failed to get matching files on " +
                      prefix + ": " + error.message());
  }
  if (files.empty() && index_failure) throw *index_failure;
  if (files.empty()) ThrowNoFiles(prefix);
  return OpenV1(files, IoMode::kPread, &OpenRemote);
}

// Opens a remote checkpoint for one op. Reads the index whole, because that needs no seeks.
OpenedTensors OpenRemoteTensors(const std::string& prefix, std::span<const std::string> names,
                                std::span<const TypeNumber> types) {
  RequireRemoteFunctions(prefix);
  std::optional<OpError> failure;
  OpenedTensors opened{.checkpoint = nullptr, .tensors = {}, .is_remote = true};
  if (const auto file = TryOpenRemoteIndex(prefix, &failure)) {
    const auto index = std::make_shared<const BundleIndex>(
        ReadBundleIndex(prefix, std::make_shared<MemorySource>(*file)));
    opened.tensors = FindTensors(index->catalog, names, types);
    opened.checkpoint = Checkpoint::OpenTensors(index, opened.tensors, IoMode::kPread, &OpenRemote);
  } else {
    opened.checkpoint = OpenRemoteV1(prefix, failure);
    opened.tensors = FindTensors(opened.checkpoint->catalog(), names, types);
  }
  return opened;
}

// Whether TensorFlow reports such a path as one that does not exist.
bool IsNoPath(const IOFailure& error) {
  return error.error_number() == ELOOP || error.error_number() == ENAMETOOLONG;
}

bool HasIndex(const std::string& prefix) {
  try {
    return File::Identify(prefix + ".index").has_value();
  } catch (const IOFailure& error) {
    return !IsNoPath(error);
  }
}

}  // namespace

OpenedTensors OpenAll(const std::string& prefix, std::span<const std::string> names,
                      std::span<const TypeNumber> types, IoMode mode) {
  for (int attempt = 1; attempt <= kMaxAttempts; ++attempt) {
    if (attempt > 1) std::this_thread::sleep_for(kRetryDelay);
    try {
      if (std::optional<OpenedTensors> opened = TryOpen(prefix, names, types, mode)) {
        return *std::move(opened);
      }
    } catch (const IndexReplacedError&) {
      continue;
    }
  }
  throw CorruptionError("the checkpoint " + prefix + " is replaced faster than it can be opened");
}

OpenedTensors OpenStock(const std::string& prefix, std::span<const std::string> names,
                        std::span<const TypeNumber> types, IoMode mode) {
  const std::string path = prefix.substr(0, prefix.find('\0'));  // as TensorFlow truncates it
  if (IsRemote(path)) return OpenRemoteTensors(path, names, types);
  const std::string local = LocalPath(path);
  try {
    return OpenAll(local, names, types, mode);
  } catch (const IOFailure& error) {
    if (HasIndex(local)) throw;
    if (IsNoPath(error)) ThrowNoFiles(local);
    throw OpError(Code::kDataLoss, "Unable to open table file " + local + ": " + error.what());
  }
}

OpenTensor Open(const std::string& prefix, const std::string& name, TypeNumber type, IoMode mode) {
  return OpenAll(prefix, {&name, 1}, {&type, 1}, mode)[0];
}

std::string TypeText(TypeNumber type) {
  constexpr TypeNumber kResource = 20;  // never in a checkpoint
  if (type == kResource) return "resource";
  std::string text = DataTypeName(DataType{type});
  if (text.starts_with("DT_")) text.erase(0, 3);
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace tensorbundle::op
