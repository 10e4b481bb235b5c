// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_strings.h"

#include <cstring>
#include <string>
#include <utility>

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

constexpr size_t kChecksumSize = sizeof(uint32_t);

// Decodes the stored bytes of one slice. Lives for one call.
class SliceDecoder {
 public:
  SliceDecoder(const Checkpoint& checkpoint, const Tensor& tensor, const StoredSlice& slice,
               ByteSpan bytes)
      : checkpoint_(checkpoint),
        tensor_(tensor),
        slice_(slice),
        big_endian_(checkpoint.catalog().big_endian),
        cursor_(bytes.data()),
        limit_(bytes.data() + bytes.size()) {}

  // varint lengths, checksum of the lengths, payloads. The older layout has 32-bit varints: the
  // same bytes.
  std::vector<ByteSpan> DecodeStrings(uint64_t count, bool verify) {
    std::vector<uint64_t> lengths;
    lengths.reserve(count);  // at most the slice's size: every length takes a byte, checked at open
    for (uint64_t i = 0; i < count; ++i) lengths.push_back(TakeLength());
    if (!TakeChecksum() && verify) Throw("the checksum of its string lengths differs");
    const ByteSpan payload(cursor_, limit_);
    std::vector<ByteSpan> elements;
    elements.reserve(count);
    for (const uint64_t length : lengths) elements.push_back(Take(length));
    if (cursor_ != limit_)
      Throw(std::to_string(limit_ - cursor_) + " bytes follow its last string");
    if (verify) CheckChecksum(checkpoint_, tensor_, slice_, Extended(payload));
    return elements;
  }

  // Per element: varint length, payload, running checksum of everything so far.
  std::vector<ByteSpan> DecodeVariants(uint64_t count, bool verify) {
    std::vector<ByteSpan> elements;
    elements.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t length = DecodeLength();
      crc_ = crc32c::Extend(crc_, &length, sizeof(length));
      elements.push_back(Take(length));
      crc_ = Extended(elements.back());
      if (!TakeChecksum() && verify)
        Throw("the checksum of its element " + std::to_string(i) + " differs");
    }
    if (cursor_ != limit_)
      Throw(std::to_string(limit_ - cursor_) + " bytes follow its last element");
    if (verify) CheckChecksum(checkpoint_, tensor_, slice_, crc_);
    return elements;
  }

 private:
  [[noreturn]] void Throw(const std::string& what) const {
    throw CorruptionError(checkpoint_.files().Get(slice_.file).path() + ": " +
                          Describe(checkpoint_.catalog(), tensor_, slice_) + " at offset " +
                          std::to_string(slice_.offset) + ": " + what);
  }

  uint64_t DecodeLength() {
    uint64_t length = 0;
    const uint8_t* next = DecodeVarint64(cursor_, limit_, &length);
    // A last byte of 0 adds nothing: no writer spells a number longer than it needs.
    if (next == nullptr || (next - cursor_ > 1 && next[-1] == 0)) Throw("a length is malformed");
    cursor_ = next;
    return length;
  }

  // A string's length enters the checksum as four bytes, or eight where four do not hold it.
  uint64_t TakeLength() {
    const uint64_t length = DecodeLength();
    if (length <= UINT32_MAX) {
      const auto narrow = static_cast<uint32_t>(length);
      const uint32_t ordered = big_endian_ ? __builtin_bswap32(narrow) : narrow;
      crc_ = crc32c::Extend(crc_, &ordered, sizeof(ordered));
    } else {
      const uint64_t ordered = big_endian_ ? __builtin_bswap64(length) : length;
      crc_ = crc32c::Extend(crc_, &ordered, sizeof(ordered));
    }
    return length;
  }

  ByteSpan Take(uint64_t size) {
    if (size > static_cast<uint64_t>(limit_ - cursor_)) {
      Throw("an element claims " + std::to_string(size) + " bytes, " +
            std::to_string(limit_ - cursor_) + " are left");
    }
    const ByteSpan bytes(cursor_, size);
    cursor_ += size;
    return bytes;
  }

  // Whether the checksum stored here is that of everything before it. Its own bytes are covered by
  // the next one.
  bool TakeChecksum() {
    const ByteSpan bytes = Take(kChecksumSize);
    const uint32_t stored = LoadFixed32(bytes.data());
    const bool same = crc32c::Unmask(big_endian_ ? __builtin_bswap32(stored) : stored) == crc_;
    crc_ = Extended(bytes);
    return same;
  }

  uint32_t Extended(ByteSpan bytes) const {
    return crc32c::Extend(crc_, bytes.data(), bytes.size());
  }

  const Checkpoint& checkpoint_;
  const Tensor& tensor_;
  const StoredSlice& slice_;
  const bool big_endian_;
  const uint8_t* cursor_;
  const uint8_t* limit_;
  uint32_t crc_ = 0;
};

StringElements FromRecord(const Checkpoint& checkpoint, const Tensor& tensor,
                          const StoredSlice& slice) {
  // One buffer for all strings, so that both formats hand out the same thing.
  const std::vector<std::string> strings = checkpoint.records()->DecodeStrings(tensor, slice);
  uint64_t size = 0;
  for (const std::string& text : strings) size += text.size();
  std::vector<uint8_t> bytes;
  bytes.reserve(size);
  std::vector<ByteSpan> elements;
  for (const std::string& text : strings) {
    const size_t begin = bytes.size();
    bytes.insert(bytes.end(), text.begin(), text.end());
    elements.emplace_back(bytes.data() + begin, text.size());
  }
  return {std::move(bytes), std::move(elements)};
}

}  // namespace

StringElements ReadStrings(const Checkpoint& checkpoint, const Tensor& tensor,
                           const StoredSlice& slice, bool verify) {
  const uint64_t count = slice.first_extent == StoredSlice::kWholeTensor
                             ? tensor.num_elements
                             : Volume(checkpoint.catalog().BoxOf(tensor, slice));
  if (verify) {
    checkpoint.CheckSlice(tensor, slice, Compared::kYes);
  } else {
    RequireReadable(checkpoint, tensor, slice);
  }
  if (slice.encoding == Encoding::kRecord) return FromRecord(checkpoint, tensor, slice);
  std::vector<uint8_t> bytes(slice.size);
  checkpoint.files().Get(slice.file).ReadAt(slice.offset, bytes);
  SliceDecoder decoder(checkpoint, tensor, slice, bytes);
  std::vector<ByteSpan> elements = slice.encoding == Encoding::kStrings
                                       ? decoder.DecodeStrings(count, verify)
                                       : decoder.DecodeVariants(count, verify);
  if (verify) checkpoint.SetVerified(slice);
  return {std::move(bytes), std::move(elements)};
}

}  // namespace tensorbundle
