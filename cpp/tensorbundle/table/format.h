// SPDX-License-Identifier: Apache-2.0
// The fixed parts of a LevelDB table file: footer, block handles, block trailers.
//
//   [data block][trailer] ... [metaindex block][trailer] [index block][trailer] [footer: 48 bytes]
#pragma once

#include <cstdint>
#include <optional>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

inline constexpr uint64_t kFooterSize = 48;
inline constexpr uint64_t kTrailerSize = 5;                  // type byte, masked CRC32C
inline constexpr uint64_t kTableMagic = 0xdb4775248b80fb57;  // the last eight bytes, little-endian

enum class BlockType : uint8_t { kPlain = 0, kSnappy = 1 };

// The location of a block. `size` excludes the trailer.
struct BlockHandle {
  uint64_t offset = 0;
  uint64_t size = 0;

  // Returns the end of the trailer. Requires: FitsBefore() is true for some limit.
  uint64_t end() const { return offset + size + kTrailerSize; }

  // Whether block and trailer end at or before `limit`.
  bool FitsBefore(uint64_t limit) const {
    return limit >= kTrailerSize && offset <= limit - kTrailerSize &&
           size <= limit - kTrailerSize - offset;
  }
};

// Reads two varints. Returns the new cursor, or null if they are malformed.
const uint8_t* DecodeBlockHandle(const uint8_t* p, const uint8_t* limit, BlockHandle* handle);

struct Footer {
  BlockHandle metaindex;
  BlockHandle index;
};

// Whether the bytes end with kTableMagic.
bool HasTableMagic(ByteSpan tail);

// Decodes a footer. Returns nothing if a handle is malformed or the padding is not zero.
// Requires: kFooterSize bytes for which HasTableMagic() is true.
std::optional<Footer> DecodeFooter(ByteSpan footer);

}  // namespace tensorbundle
