// SPDX-License-Identifier: Apache-2.0
// The stored bytes of n strings or variants:
//
//   strings:   varint64 length[n]  |  fixed32 checksum of the lengths  |  payload[n]
//   variants:  { varint64 length  |  payload  |  fixed32 checksum of everything before }[n]
//
// Every checksum is a masked CRC32C in the byte order of the tensors. It covers the elements so
// far: not their stored bytes, but each length as a number (4 bytes for a string, or 8 if it
// exceeds 2^32 - 1; 8 bytes for a variant), each payload, and each earlier checksum as it is
// stored. The checksum in the index is the value after the last byte. docs/format.md, "V2: a
// bundle".
//
// DecodeElements() needs the whole slice in memory, and gives the elements. StreamingElements takes
// the slice in chunks of any size, and gives the checksum only: its memory is constant.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/bundle/catalog.h"

namespace tensorbundle {

// Returns the size of the shortest encoding of `num_elements` elements, or nothing if it overflows.
// Requires: `encoding` is kStrings or kVariants.
std::optional<uint64_t> MinElementsSize(Encoding encoding, uint64_t num_elements);

// The checksum of the elements so far.
class ElementsChecksum {
 public:
  ElementsChecksum(Encoding encoding, bool big_endian)
      : encoding_(encoding), big_endian_(big_endian) {}

  void AddLength(uint64_t length);
  void AddPayload(ByteSpan bytes);
  // Adds a stored checksum. Returns whether it is correct.
  bool AddChecksum(const uint8_t* stored);

  uint32_t value() const { return crc32c::Extend(crc_, pending_, num_pending_); }

 private:
  void AddNumber(const void* number, size_t size);
  void Flush();

  Encoding encoding_;
  bool big_endian_;
  uint32_t crc_ = 0;           // of everything before the pending bytes
  uint8_t pending_[256] = {};  // lengths, of which one alone takes as long as many together
  size_t num_pending_ = 0;
};

enum class ElementsError : uint8_t {
  kNone,
  kLength,           // a length is malformed, or longer than necessary
  kTooLong,          // an element or a checksum does not fit the rest of the slice
  kLengthsChecksum,  // the checksum of the lengths of strings differs
  kElementChecksum,  // the checksum of variant number `number` differs
  kTrailingBytes,    // bytes follow the last element
};

// Where elements begin and end in memory: element i takes the bytes from numbers[i * stride] to
// numbers[i * stride + 1], counted from `base`. Strings follow one another, so that their stride is
// 1; millions of them take 8 bytes each here.
struct ElementOffsets {
  std::vector<uint64_t> numbers;
  unsigned stride = 1;
  uint64_t base = 0;

  // Requires: the elements have been decoded.
  size_t size() const { return stride == 1 ? numbers.size() - 1 : numbers.size() / stride; }
  ByteSpan Of(const uint8_t* memory, size_t i) const {
    const uint64_t* number = numbers.data() + i * stride;
    return {memory + base + number[0], number[1] - number[0]};
  }
};

struct DecodedElements {
  ElementOffsets offsets;  // in the stored bytes
  uint32_t checksum = 0;   // to be compared with the index; only if `verify`
  ElementsError error = ElementsError::kNone;
  uint64_t number = 0;   // kElementChecksum: the number of the element
  uint64_t claimed = 0;  // kTooLong: the size of the element
  uint64_t left = 0;     // kTooLong, kTrailingBytes: the bytes that are left
};

// Decodes all elements of a slice. Compares the checksums among the stored bytes if `verify`.
// Requires: bytes.size() >= MinElementsSize(encoding, num_elements).
DecodedElements DecodeElements(ByteSpan bytes, Encoding encoding, uint64_t num_elements,
                               bool big_endian, bool verify);

// Returns what precedes the payloads of strings: their lengths and the checksum of the lengths, all
// in little-endian order. Adds both to `checksum`, to which the payloads must be added next.
std::string EncodeStringLengths(std::span<const ByteSpan> strings, ElementsChecksum* checksum);

// Verifies the stored bytes of a slice as they come.
class StreamingElements {
 public:
  // Requires: `encoding` is kStrings or kVariants.
  StreamingElements(Encoding encoding, uint64_t num_elements, bool big_endian);

  // Takes the next bytes.
  void Extend(ByteSpan bytes);

  // Returns the checksum, to be compared with the index. Returns nothing if the bytes so far are
  // not all elements, are malformed, or contain a wrong checksum.
  std::optional<uint32_t> Value() const;

 private:
  enum class Phase : uint8_t { kLength, kChecksum, kPayload, kEnd, kMalformed };
  void TakeLengthByte(uint8_t byte);
  void TakeChecksumByte(uint8_t byte);
  ByteSpan TakePayload(ByteSpan bytes);
  void EndLength(uint64_t length);
  Phase AfterChecksum() const;

  Encoding encoding_;
  ElementsChecksum checksum_;
  uint64_t lengths_left_;
  uint64_t payload_left_ = 0;
  Phase phase_;
  uint8_t number_[kMaxVarint64Size] = {};  // the bytes so far of an incomplete length or checksum
  int number_size_ = 0;
};

}  // namespace tensorbundle
