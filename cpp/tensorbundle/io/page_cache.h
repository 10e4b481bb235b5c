// SPDX-License-Identifier: Apache-2.0
// The page cache: how much of a file it holds, and whether a stream reads through it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "tensorbundle/io/file.h"

namespace tensorbundle {

// Returns how many bytes of [offset, offset + size), which must be inside the file, are in the page
// cache, counted in whole pages. Reads nothing. Returns nothing if the system does not report it:
// Linux does so only for callers that own the file or may write to it.
std::optional<uint64_t> ResidentBytes(const File& file, uint64_t offset, uint64_t size);

// Whether the page at `offset`, which must be inside the file, is known to be missing from the page
// cache. Reads nothing, and needs no permission but that to read. False if the system does not
// tell.
bool IsMissingFromCache(const File& file, uint64_t offset);

// Starts to read a range into the page cache and does not wait for it, unless the queue of the
// device is full. Does nothing where the system cannot do that.
void StartReading(const File& file, uint64_t offset, uint64_t size);

// Shorter streams use the page cache: they evict little, and are likely to be read again.
inline constexpr uint64_t kMinDirectStream = uint64_t{64} << 20;

// The size of the requests that one thread makes with direct I/O. Devices are fastest with long
// requests, and the bounce buffer of File has this size.
inline constexpr uint64_t kDirectChunkSize = uint64_t{1} << 20;

// Chooses between buffered and direct I/O for one file that a stream reads once, front to back.
// Ranges that are not cached are read with direct I/O where that is allowed and possible: it
// reaches the speed of the device, takes less processor time, and evicts nothing from the page
// cache. Threads: one at a time; the files that it returns may be read by many.
class PageCachePolicy {
 public:
  // `file` must outlive the policy. `allow_direct`: the I/O mode is automatic, and the stream is
  // long.
  PageCachePolicy(const File& file, bool allow_direct) : file_(file), allow_direct_(allow_direct) {}

  // Returns the file to read a range from: `file`, or the same opened for direct I/O.
  const File& Select(uint64_t offset, uint64_t size);

  // Whether Select() would return a file for direct I/O. Opens nothing.
  bool PrefersDirect(uint64_t offset, uint64_t size) const;

 private:
  const File* DirectFile();

  const File& file_;
  bool allow_direct_;
  std::shared_ptr<const File> direct_;  // opened when first needed
};

}  // namespace tensorbundle
