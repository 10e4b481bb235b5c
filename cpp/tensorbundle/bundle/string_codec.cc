// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/string_codec.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/interrupt.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kChecksumSize = sizeof(uint32_t);
// CheckInterrupt() is called after so many elements.
constexpr uint64_t kElementsPerCheck = uint64_t{1} << 20;

// Returns the new cursor, or null if the length is malformed. A redundant last byte of 0 is an
// error: no writer makes it, so it is a flipped bit.
const uint8_t* DecodeLength(const uint8_t* p, const uint8_t* limit, uint64_t* length) {
  const uint8_t* next = DecodeVarint64(p, limit, length);
  return next == nullptr || (next - p > 1 && next[-1] == 0) ? nullptr : next;
}

// Decodes one slice. Every step returns false after an error.
class ElementsDecoder {
 public:
  ElementsDecoder(ByteSpan bytes, Encoding encoding, bool big_endian, bool verify)
      : begin_(bytes.data()),
        cursor_(bytes.data()),
        limit_(bytes.data() + bytes.size()),
        checksum_(encoding, big_endian),
        verify_(verify) {}

  bool DecodeStrings(uint64_t count) {
    std::vector<uint64_t>& offsets = result_.offsets.numbers;
    offsets.reserve(count + 1);
    uint64_t end = 0;
    offsets.push_back(end);
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t length = 0;
      if (!TakeLength(&length)) return false;
      if (i % kElementsPerCheck == 0) CheckInterrupt();
      end = length > UINT64_MAX - end ? UINT64_MAX : end + length;
      offsets.push_back(end);
    }
    if (!TakeChecksum(ElementsError::kLengthsChecksum)) return false;
    result_.offsets.base = Position();
    if (end > left()) return FailTooLong(count);
    const ByteSpan payload(cursor_, end);
    cursor_ += end;
    if (!IsAtEnd()) return false;
    if (verify_) checksum_.AddPayload(payload);
    return true;
  }

  bool DecodeVariants(uint64_t count) {
    result_.offsets.stride = 2;
    std::vector<uint64_t>& offsets = result_.offsets.numbers;
    offsets.reserve(2 * count);
    for (; result_.number < count; ++result_.number) {
      uint64_t length = 0;
      if (!TakeLength(&length) || !HasLeft(length)) return false;
      if (result_.number % kElementsPerCheck == 0) CheckInterrupt();
      offsets.push_back(Position());
      if (verify_) checksum_.AddPayload({cursor_, length});
      cursor_ += length;
      offsets.push_back(Position());
      if (!TakeChecksum(ElementsError::kElementChecksum)) return false;
    }
    return IsAtEnd();
  }

  DecodedElements Result() && {
    result_.checksum = checksum_.value();
    return std::move(result_);
  }

 private:
  bool Fail(ElementsError error) {
    result_.error = error;
    return false;
  }

  uint64_t left() const { return static_cast<uint64_t>(limit_ - cursor_); }
  uint64_t Position() const { return static_cast<uint64_t>(cursor_ - begin_); }

  bool TakeLength(uint64_t* length) {
    const uint8_t* next = DecodeLength(cursor_, limit_, length);
    if (next == nullptr) return Fail(ElementsError::kLength);
    cursor_ = next;
    if (verify_) checksum_.AddLength(*length);
    return true;
  }

  bool HasLeft(uint64_t size) {
    if (size <= left()) return true;
    result_.claimed = size;
    result_.left = left();
    return Fail(ElementsError::kTooLong);
  }

  // Reports the first string that does not fit. Requires: the cursor is at the payload.
  bool FailTooLong(uint64_t count) {
    const uint8_t* p = begin_;
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t length = 0;
      p = DecodeLength(p, limit_, &length);
      if (!HasLeft(length)) return false;
      cursor_ += length;
    }
    return false;
  }

  bool TakeChecksum(ElementsError error) {
    if (!HasLeft(kChecksumSize)) return false;
    const uint8_t* stored = cursor_;
    cursor_ += kChecksumSize;
    return !verify_ || checksum_.AddChecksum(stored) || Fail(error);
  }

  bool IsAtEnd() {
    result_.left = left();
    return cursor_ == limit_ || Fail(ElementsError::kTrailingBytes);
  }

  const uint8_t* begin_;
  const uint8_t* cursor_;
  const uint8_t* limit_;
  ElementsChecksum checksum_;
  bool verify_;
  DecodedElements result_;
};

}  // namespace

std::optional<uint64_t> MinElementsSize(Encoding encoding, uint64_t num_elements) {
  if (encoding == Encoding::kStrings) return CheckedAdd(num_elements, kChecksumSize);
  return CheckedMul(num_elements, 1 + kChecksumSize);
}

void ElementsChecksum::AddLength(uint64_t length) {
  const bool swap = big_endian_ && encoding_ == Encoding::kStrings;
  if (encoding_ == Encoding::kStrings && length <= UINT32_MAX) {
    const auto narrow = static_cast<uint32_t>(length);
    const uint32_t ordered = swap ? __builtin_bswap32(narrow) : narrow;
    AddNumber(&ordered, sizeof(ordered));
  } else {
    const uint64_t ordered = swap ? __builtin_bswap64(length) : length;
    AddNumber(&ordered, sizeof(ordered));
  }
}

void ElementsChecksum::AddNumber(const void* number, size_t size) {
  if (num_pending_ + size > sizeof(pending_)) Flush();
  std::memcpy(pending_ + num_pending_, number, size);
  num_pending_ += size;
}

void ElementsChecksum::Flush() {
  crc_ = crc32c::Extend(crc_, pending_, num_pending_);
  num_pending_ = 0;
}

void ElementsChecksum::AddPayload(ByteSpan bytes) {
  Flush();
  crc_ = crc32c::Extend(crc_, bytes.data(), bytes.size());
}

bool ElementsChecksum::AddChecksum(const uint8_t* stored) {
  Flush();
  const uint32_t masked = LoadFixed32(stored);
  const bool same = crc32c::Unmask(big_endian_ ? __builtin_bswap32(masked) : masked) == crc_;
  crc_ = crc32c::Extend(crc_, stored, kChecksumSize);
  return same;
}

DecodedElements DecodeElements(ByteSpan bytes, Encoding encoding, uint64_t num_elements,
                               bool big_endian, bool verify) {
  ElementsDecoder decoder(bytes, encoding, big_endian, verify);
  if (encoding == Encoding::kStrings) {
    decoder.DecodeStrings(num_elements);
  } else {
    decoder.DecodeVariants(num_elements);
  }
  return std::move(decoder).Result();
}

std::string EncodeStringLengths(std::span<const ByteSpan> strings, ElementsChecksum* checksum) {
  std::string bytes;
  for (const ByteSpan string : strings) {
    PutVarint64(string.size(), &bytes);
    checksum->AddLength(string.size());
  }
  const size_t end = bytes.size();
  PutFixed32(crc32c::Mask(checksum->value()), &bytes);
  checksum->AddChecksum(AsBytes(bytes).data() + end);
  return bytes;
}

StreamingElements::StreamingElements(Encoding encoding, uint64_t num_elements, bool big_endian)
    : encoding_(encoding), checksum_(encoding, big_endian), lengths_left_(num_elements) {
  const Phase when_empty = encoding == Encoding::kStrings ? Phase::kChecksum : Phase::kEnd;
  phase_ = num_elements > 0 ? Phase::kLength : when_empty;
}

void StreamingElements::Extend(ByteSpan bytes) {
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
      case Phase::kEnd:  // bytes follow the last element
      case Phase::kMalformed:
        phase_ = Phase::kMalformed;
        return;
    }
    bytes = bytes.subspan(1);
  }
}

std::optional<uint32_t> StreamingElements::Value() const {
  if (phase_ != Phase::kEnd) return std::nullopt;
  return checksum_.value();
}

void StreamingElements::TakeLengthByte(uint8_t byte) {
  number_[number_size_++] = byte;
  if (byte >= 0x80 && number_size_ < kMaxVarint64Size) return;
  uint64_t length = 0;
  const bool ok = DecodeLength(number_, number_ + number_size_, &length) != nullptr;
  number_size_ = 0;
  if (ok) {
    EndLength(length);
  } else {
    phase_ = Phase::kMalformed;
  }
}

void StreamingElements::EndLength(uint64_t length) {
  const std::optional<uint64_t> total = CheckedAdd(payload_left_, length);
  if (!total) {
    phase_ = Phase::kMalformed;
    return;
  }
  payload_left_ = *total;
  --lengths_left_;
  checksum_.AddLength(length);
  if (encoding_ == Encoding::kStrings) {
    if (lengths_left_ == 0) phase_ = Phase::kChecksum;
  } else {
    phase_ = payload_left_ > 0 ? Phase::kPayload : Phase::kChecksum;
  }
}

void StreamingElements::TakeChecksumByte(uint8_t byte) {
  number_[number_size_++] = byte;
  if (number_size_ < static_cast<int>(kChecksumSize)) return;
  number_size_ = 0;
  phase_ = checksum_.AddChecksum(number_) ? AfterChecksum() : Phase::kMalformed;
}

StreamingElements::Phase StreamingElements::AfterChecksum() const {
  if (encoding_ == Encoding::kStrings) return payload_left_ > 0 ? Phase::kPayload : Phase::kEnd;
  return lengths_left_ > 0 ? Phase::kLength : Phase::kEnd;
}

ByteSpan StreamingElements::TakePayload(ByteSpan bytes) {
  const auto size = static_cast<size_t>(std::min<uint64_t>(payload_left_, bytes.size()));
  checksum_.AddPayload(bytes.first(size));
  payload_left_ -= size;
  if (payload_left_ == 0) {
    phase_ = encoding_ == Encoding::kStrings ? Phase::kEnd : Phase::kChecksum;
  }
  return bytes.subspan(size);
}

}  // namespace tensorbundle
