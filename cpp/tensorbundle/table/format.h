// SPDX-License-Identifier: Apache-2.0
// The fixed parts of a LevelDB-style table file: footer, block handles, block trailers.
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

// Where a block lies. `size` does not count the trailer.
struct BlockHandle {
  uint64_t offset = 0;
  uint64_t size = 0;

  // Where the block's trailer ends. Meaningful after `FitsBefore` only.
  uint64_t end() const { return offset + size + kTrailerSize; }

  // Whether block and trailer end at or before `limit`.
  bool FitsBefore(uint64_t limit) const {
    return limit >= kTrailerSize && offset <= limit - kTrailerSize &&
           size <= limit - kTrailerSize - offset;
  }
};

// Reads two varints. Null when malformed.
const uint8_t* DecodeBlockHandle(const uint8_t* p, const uint8_t* limit, BlockHandle* handle);

struct Footer {
  BlockHandle metaindex;
  BlockHandle index;
};

// Whether the bytes end as a table does.
bool HasTableMagic(ByteSpan tail);

// Decodes the 48 bytes of a footer whose magic has been checked. Nothing when a handle is malformed
// or the padding behind the handles is not zero.
std::optional<Footer> DecodeFooter(ByteSpan footer);

}  // namespace tensorbundle
