// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/table/snappy.h"

#include <cstring>

#include "tensorbundle/base/coding.h"

namespace tensorbundle {
namespace {

// The densest element is a copy of 64 bytes encoded in 3.
constexpr uint64_t kMaxExpansion = 22;

// The two low bits of an element's first byte.
enum Tag : uint8_t { kLiteral = 0, kCopy1 = 1, kCopy2 = 2, kCopy4 = 3 };

// The output buffer. Every append is checked against the size that the stream states.
class Sink {
 public:
  explicit Sink(size_t size) : bytes_(size) {}

  bool Append(const uint8_t* p, uint64_t n) {
    if (n > bytes_.size() - done_) return false;
    std::memcpy(bytes_.data() + done_, p, n);
    done_ += n;
    return true;
  }

  // Copies `n` bytes from `offset` bytes back. Source and destination may overlap.
  bool CopyBack(uint64_t offset, uint64_t n) {
    if (offset == 0 || offset > done_ || n > bytes_.size() - done_) return false;
    for (uint64_t i = 0; i < n; ++i, ++done_) bytes_[done_] = bytes_[done_ - offset];
    return true;
  }

  bool full() const { return done_ == bytes_.size(); }
  std::vector<uint8_t> Take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
  size_t done_ = 0;
};

// Reads `n` little-endian bytes. Returns the new cursor, or null if there are fewer.
const uint8_t* LoadLittle(const uint8_t* p, const uint8_t* limit, int n, uint32_t* value) {
  if (limit - p < n) return nullptr;
  *value = 0;
  for (int i = 0; i < n; ++i) *value |= static_cast<uint32_t>(p[i]) << (8 * i);
  return p + n;
}

const uint8_t* DecodeLiteral(const uint8_t* p, const uint8_t* limit, uint8_t tag, Sink* sink) {
  uint64_t length = tag >> 2;
  if (length >= 60) {  // 60..63: the length minus one follows in 1..4 bytes
    uint32_t wide = 0;
    p = LoadLittle(p, limit, static_cast<int>(length) - 59, &wide);
    if (p == nullptr) return nullptr;
    length = wide;
  }
  length += 1;
  if (length > static_cast<uint64_t>(limit - p) || !sink->Append(p, length)) return nullptr;
  return p + length;
}

const uint8_t* DecodeCopy(const uint8_t* p, const uint8_t* limit, uint8_t tag, Sink* sink) {
  uint32_t offset = 0;
  uint64_t length = (tag >> 2) + 1U;
  switch (tag & 3) {
    case kCopy1:
      p = LoadLittle(p, limit, 1, &offset);
      offset |= static_cast<uint32_t>(tag >> 5) << 8;
      length = ((tag >> 2) & 7) + 4U;
      break;
    case kCopy2:
      p = LoadLittle(p, limit, 2, &offset);
      break;
    default:
      p = LoadLittle(p, limit, 4, &offset);
      break;
  }
  return p != nullptr && sink->CopyBack(offset, length) ? p : nullptr;
}

}  // namespace

std::optional<std::vector<uint8_t>> SnappyUncompress(ByteSpan compressed) {
  const uint8_t* p = compressed.data();
  const uint8_t* limit = p + compressed.size();
  uint32_t size = 0;
  p = DecodeVarint32(p, limit, &size);
  if (p == nullptr || size > kMaxExpansion * compressed.size()) return std::nullopt;
  Sink sink(size);
  while (p != nullptr && p < limit) {
    const uint8_t tag = *p++;
    p = (tag & 3) == kLiteral ? DecodeLiteral(p, limit, tag, &sink)
                              : DecodeCopy(p, limit, tag, &sink);
  }
  if (p == nullptr || !sink.full()) return std::nullopt;
  return sink.Take();
}

}  // namespace tensorbundle
