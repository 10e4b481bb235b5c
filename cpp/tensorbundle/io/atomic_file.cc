// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <random>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/file.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kMaxWriteSize = uint64_t{1}
                                   << 30;  // Linux moves at most 2^31 - 4096 bytes at once
constexpr std::string_view kTemporaryStart = ".tempstate";
constexpr std::string_view kTemporaryEnd = "-tb";

// Whether a file system uses this error for operations that it does not support.
bool IsUnsupported(int error) {
  return error == EOPNOTSUPP || error == ENOTSUP || error == ENOSYS || error == EINVAL ||
         error == EPERM;
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

void OutputFile::WriteAt(uint64_t offset, ByteSpan bytes) const {
  uint64_t done = 0;
  while (done < bytes.size()) {
    const auto wanted = static_cast<size_t>(std::min(bytes.size() - done, kMaxWriteSize));
    const ssize_t written = Uninterrupted([&] {
      return ::pwrite(descriptor_, bytes.data() + done, wanted, static_cast<off_t>(offset + done));
    });
    if (written == 0) errno = EIO;  // prevents an endless loop; no system returns 0
    if (written <= 0)
      ThrowSystemError("write at offset " + std::to_string(offset + done) + " to", path_);
    done += static_cast<uint64_t>(written);
  }
}

void OutputFile::StartWriteback() const {
#ifdef __linux__
  // Ignores errors: a later fsync() reports them.
  (void)::sync_file_range(descriptor_, 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
}

AtomicFile::AtomicFile(std::string path) : OutputFile(std::move(path), -1), process_(::getpid()) {}

uint64_t AtomicFile::RandomNumber() {
  std::random_device random;
  return uint64_t{random()} << 32 | random();
}

std::optional<uint64_t> AtomicFile::NumberOf(std::string_view temporary, std::string_view name) {
  const std::string start = std::string(name) + std::string(kTemporaryStart);
  if (!temporary.starts_with(start) || !temporary.ends_with(kTemporaryEnd)) return std::nullopt;
  temporary.remove_prefix(start.size());
  const char* end = temporary.data() + temporary.size() - kTemporaryEnd.size();
  uint64_t number = 0;
  const auto [stop, error] = std::from_chars(temporary.data(), end, number);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return number;
}

bool AtomicFile::CreateTemporary(uint64_t number) {
  std::string name =
      path_ + std::string(kTemporaryStart) + std::to_string(number) + std::string(kTemporaryEnd);
  descriptor_ = Uninterrupted(
      [&] { return ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
  if (descriptor_ >= 0) {
    temporary_ = std::move(name);
    return true;
  }
  if (errno != EEXIST) ThrowSystemError("create", name);
  return false;
}

std::unique_ptr<AtomicFile> AtomicFile::Create(const std::string& path, uint64_t number) {
  std::unique_ptr<AtomicFile> file(new AtomicFile(path));
  if (!file->CreateTemporary(number)) ThrowSystemError("create a temporary file for", path);
  return file;
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (kept_ || process_ != ::getpid()) return;
  if (published_) ::unlink(path_.c_str());
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::Resize(uint64_t size) {
#ifdef __linux__
  if (size > 0) {
    const auto length = static_cast<off_t>(size);
    if (Uninterrupted([&] { return ::fallocate(descriptor_, 0, 0, length); }) == 0) return;
    if (!IsUnsupported(errno)) {
      ThrowSystemError("take " + std::to_string(size) + " bytes of disk space for", path_);
    }
  }
#endif
  if (Uninterrupted([&] { return ::ftruncate(descriptor_, static_cast<off_t>(size)); }) != 0) {
    ThrowSystemError("make " + std::to_string(size) + " bytes of", path_);
  }
}

void AtomicFile::Finish() {
  if (descriptor_ < 0) return;
  if (Uninterrupted([&] { return ::fsync(descriptor_); }) != 0) {
    ThrowSystemError("bring to the disk", path_);
  }
  const int failed = ::close(descriptor_);  // closes the descriptor even if it fails
  descriptor_ = -1;
  if (failed != 0 && errno != EINTR) ThrowSystemError("close", path_);
}

void AtomicFile::PublishAs(const std::string& path) {
  path_ = path;
  // Adds the final name, then removes the temporary one. Unlike rename(), this replaces no file.
  if (::link(temporary_.c_str(), path_.c_str()) == 0) {
    published_ = true;
    if (::unlink(temporary_.c_str()) != 0) ThrowSystemError("remove", temporary_);
    temporary_.clear();
  } else if (IsUnsupported(errno)) {
    // The file system has no hard links. A file that appears between lstat() and rename() is
    // replaced.
    struct stat ignored{};
    if (::lstat(path_.c_str(), &ignored) == 0) errno = EEXIST;
    if (errno != ENOENT) ThrowSystemError("create", path_);
    Replace();
  } else {
    ThrowSystemError("create", path_);
  }
}

void AtomicFile::Replace() {
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) ThrowSystemError("create", path_);
  published_ = true;
  temporary_.clear();
}

AtomicDirectory::AtomicDirectory(std::string path) : path_(std::move(path)), process_(::getpid()) {}

std::unique_ptr<AtomicDirectory> AtomicDirectory::For(const std::string& path) {
  std::unique_ptr<AtomicDirectory> directory(new AtomicDirectory(DirectoryOf(path)));
  const char* name = directory->path_.c_str();
  directory->kept_ = ::mkdir(name, 0777) != 0;
  if (directory->kept_ && errno != EEXIST) {
    // A read-only file system may report EROFS although the directory exists.
    const int error = errno;
    struct stat status{};
    if (::stat(name, &status) != 0) {
      errno = error;
      ThrowSystemError("make the directory", directory->path_);
    }
  }
  return directory;
}

AtomicDirectory::~AtomicDirectory() {
  if (!kept_ && process_ == ::getpid()) ::rmdir(path_.c_str());
}

void AtomicDirectory::Sync() const {
  const int descriptor =
      Uninterrupted([&] { return ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (descriptor < 0) ThrowSystemError("open the directory", path_);
  const int failed = Uninterrupted([&] { return ::fsync(descriptor); });
  const int error = errno;
  ::close(descriptor);
  if (failed == 0 || IsUnsupported(error)) return;  // some file systems cannot sync directories
  errno = error;
  ThrowSystemError("bring to the disk the directory", path_);
}

}  // namespace tensorbundle
