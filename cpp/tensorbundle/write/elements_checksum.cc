// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/write/elements_checksum.h"

#include <algorithm>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/crc32c.h"

namespace tensorbundle {
namespace {

constexpr int kChecksumSize = sizeof(uint32_t);

}  // namespace

ElementsChecksum::ElementsChecksum(Encoding encoding, uint64_t num_elements, bool big_endian)
    : encoding_(encoding), big_endian_(big_endian), lengths_left_(num_elements) {
  const Phase when_empty = encoding == Encoding::kStrings ? Phase::kChecksum : Phase::kEnd;
  phase_ = num_elements > 0 ? Phase::kLength : when_empty;
}

void ElementsChecksum::Extend(ByteSpan bytes) {
  while (!bytes.empty()) {
    switch (phase_) {
      case Phase::kPayload:
        bytes = TakePayload(bytes);
        continue;
      case Phase::kLength:
        TakeLengthByte(bytes.front());
        break;
      case Phase::kChecksum:
        TakeChecksumByte(bytes.front());
        break;
      case Phase::kEnd:  // something follows the last element
      case Phase::kMalformed:
        phase_ = Phase::kMalformed;
        return;
    }
    bytes = bytes.subspan(1);
  }
}

std::optional<uint32_t> ElementsChecksum::Value() const {
  if (phase_ != Phase::kEnd) return std::nullopt;
  return crc_;
}

void ElementsChecksum::TakeLengthByte(uint8_t byte) {
  const int shift = 7 * number_size_++;
  const bool last_of_ten = number_size_ == kMaxVarint64Size;
  number_ |= uint64_t{byte & 0x7fU} << shift;
  if (byte < 0x80) {
    // A last byte of 0 adds nothing: no writer spells a number longer than it needs.
    if ((last_of_ten && byte > 1) || (byte == 0 && number_size_ > 1)) {
      phase_ = Phase::kMalformed;
      return;
    }
    EndLength();
    number_ = 0;
    number_size_ = 0;
  } else if (last_of_ten) {
    phase_ = Phase::kMalformed;
  }
}

void ElementsChecksum::EndLength() {
  const std::optional<uint64_t> total = CheckedAdd(payload_left_, number_);
  if (!total) {
    phase_ = Phase::kMalformed;
    return;
  }
  payload_left_ = *total;
  --lengths_left_;
  ExtendWithLength();
  if (encoding_ == Encoding::kStrings) {
    if (lengths_left_ == 0) phase_ = Phase::kChecksum;
  } else {
    phase_ = payload_left_ > 0 ? Phase::kPayload : Phase::kChecksum;
  }
}

// A string's length enters as four bytes, or eight where four do not hold it; a variant's as eight.
void ElementsChecksum::ExtendWithLength() {
  const bool swap = big_endian_ && encoding_ == Encoding::kStrings;
  if (encoding_ == Encoding::kStrings && number_ <= UINT32_MAX) {
    const auto narrow = static_cast<uint32_t>(number_);
    const uint32_t ordered = swap ? __builtin_bswap32(narrow) : narrow;
    crc_ = crc32c::Extend(crc_, &ordered, sizeof(ordered));
  } else {
    const uint64_t ordered = swap ? __builtin_bswap64(number_) : number_;
    crc_ = crc32c::Extend(crc_, &ordered, sizeof(ordered));
  }
}

void ElementsChecksum::TakeChecksumByte(uint8_t byte) {
  number_ |= uint64_t{byte} << 8 * number_size_++;
  if (number_size_ < kChecksumSize) return;
  const auto stored = static_cast<uint32_t>(number_);
  const bool same = crc32c::Unmask(big_endian_ ? __builtin_bswap32(stored) : stored) == crc_;
  crc_ = crc32c::Extend(crc_, &stored, sizeof(stored));
  number_ = 0;
  number_size_ = 0;
  phase_ = same ? AfterChecksum() : Phase::kMalformed;
}

ElementsChecksum::Phase ElementsChecksum::AfterChecksum() const {
  if (encoding_ == Encoding::kStrings) return payload_left_ > 0 ? Phase::kPayload : Phase::kEnd;
  return lengths_left_ > 0 ? Phase::kLength : Phase::kEnd;
}

ByteSpan ElementsChecksum::TakePayload(ByteSpan bytes) {
  const auto size = static_cast<size_t>(std::min<uint64_t>(payload_left_, bytes.size()));
  crc_ = crc32c::Extend(crc_, bytes.data(), size);
  payload_left_ -= size;
  if (payload_left_ == 0) {
    phase_ = encoding_ == Encoding::kStrings ? Phase::kEnd : Phase::kChecksum;
  }
  return bytes.subspan(size);
}

}  // namespace tensorbundle
