// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/stream_source.h"

#include <optional>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/residency.h"

#ifdef __linux__
#include <sys/vfs.h>
#endif

namespace tensorbundle {
namespace {

// Shorter ranges are not worth a request of their own to the device.
constexpr uint64_t kMinBypassRange = uint64_t{1} << 20;

// File systems on disks of this machine, by the magic numbers of statfs(2). Network file systems
// cache on purpose, and those in memory have nothing to bypass.
bool IsLocalDisk(const File& file) {
#ifdef __linux__
  struct statfs status{};
  if (::fstatfs(file.descriptor(), &status) != 0) return false;
  switch (static_cast<uint32_t>(status.f_type)) {
    case 0xEF53:      // ext2 to ext4
    case 0x58465342:  // XFS
    case 0x9123683E:  // Btrfs
    case 0xF2F52010:  // F2FS
    case 0x794C7630:  // overlayfs, as in containers
      return true;
    default:
      return false;
  }
#else
  (void)file;
  return false;
#endif
}

}  // namespace

bool StreamSource::WouldBypass(uint64_t offset, uint64_t size) const {
  if (!may_bypass_ || size < kMinBypassRange || !IsLocalDisk(file_)) return false;
  const std::optional<uint64_t> resident = ResidentBytes(file_, offset, size);
  return resident && *resident < size / 2;
}

const File& StreamSource::Choose(uint64_t offset, uint64_t size) {
  if (!WouldBypass(offset, size)) return file_;
  const File* direct = Direct();
  return direct == nullptr ? file_ : *direct;
}

const File* StreamSource::Direct() {
  if (direct_ != nullptr) return direct_.get();
  try {
    std::shared_ptr<const File> direct = File::Open(file_.path(), ReadMode::kDirect);
    if (direct->identity() == file_.identity()) direct_ = std::move(direct);
  } catch (const Error&) {  // no direct I/O here, or the file's name leads elsewhere by now
  }
  if (direct_ == nullptr) may_bypass_ = false;
  return direct_.get();
}

}  // namespace tensorbundle
