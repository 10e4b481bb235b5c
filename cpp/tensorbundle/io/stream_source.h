// SPDX-License-Identifier: Apache-2.0
// How the bytes of a stream are fetched: through the page cache or past it.
#pragma once

#include <cstdint>
#include <memory>

#include "tensorbundle/io/file.h"

namespace tensorbundle {

// One file that a stream reads once from front to back. A range that is not in memory is read past
// the page cache where that is allowed and possible: the device's own speed, a fraction of the
// processor time, and nothing that others cached is thrown out for bytes that are read once. For
// one thread at a time; what it returns may be read by many.
class StreamSource {
 public:
  // `file` outlives the source. `may_bypass`: the caller left the choice to us, and the stream is
  // long enough to be worth it.
  StreamSource(const File& file, bool may_bypass) : file_(file), may_bypass_(may_bypass) {}

  // What to read a range with.
  const File& Choose(uint64_t offset, uint64_t size);

  // Whether Choose would go past the page cache; opens nothing.
  bool WouldBypass(uint64_t offset, uint64_t size) const;

 private:
  const File* Direct();

  const File& file_;
  bool may_bypass_;
  std::shared_ptr<const File> direct_;  // opened when first needed
};

// Streams below this stay with the page cache: reading them again soon is likelier than not, and
// they throw out little.
inline constexpr uint64_t kMinBypassStream = uint64_t{64} << 20;

// What one thread reads at a time past the page cache: devices want long requests, and the bounce
// buffer of File has this size.
inline constexpr uint64_t kDirectChunkSize = uint64_t{1} << 20;

}  // namespace tensorbundle
