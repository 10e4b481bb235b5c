// SPDX-License-Identifier: Apache-2.0
// The protobuf wire format: a reader of one field at a time, without allocation and recursion, and
// functions that append fields.
//
// The reader is stricter than a general decoder: groups, field number 0 and numbers above 2^29 - 1
// are errors. TensorFlow never writes them, and each of them has crashed some reader. The caller
// skips unknown fields.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/coding.h"

namespace tensorbundle {

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct WireField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;  // of kVarint, kFixed64 and kFixed32
  ByteSpan bytes;      // of kBytes; borrowed from the message

  bool Is(uint32_t wanted_number, WireType wanted_type) const {
    return number == wanted_number && type == wanted_type;
  }
};

// Iterates over the fields of one message.
// Lifetime: the message must outlive the reader and its fields.
class WireReader {
 public:
  explicit WireReader(ByteSpan message)
      : cursor_(message.data()), limit_(message.data() + message.size()) {}

  // Moves to the next field. Returns false at the end of the message and at the first malformed
  // byte; ok() tells which. Inline, because most fields of an index have two bytes.
  bool Next(WireField* field) {
    if (cursor_ == limit_ || !ok_) return false;
    uint64_t tag = 0;
    const uint8_t* p = DecodeVarint64(cursor_, limit_, &tag);
    const uint64_t number = tag >> 3;
    ok_ = p != nullptr && number != 0 && number <= kMaxFieldNumber;
    if (!ok_) return false;
    field->number = static_cast<uint32_t>(number);
    field->type = static_cast<WireType>(tag & 7);
    field->value = 0;
    field->bytes = {};
    cursor_ = ReadPayload(p, field);
    ok_ = cursor_ != nullptr;
    return ok_;
  }

  // Whether everything read so far was well-formed.
  bool ok() const { return ok_; }

 private:
  static constexpr uint64_t kMaxFieldNumber = (uint64_t{1} << 29) - 1;  // protobuf's own limit

  // Reads the payload that follows a tag. Returns null if it is malformed.
  const uint8_t* ReadPayload(const uint8_t* p, WireField* field) const {
    if (field->type == WireType::kVarint) return DecodeVarint64(p, limit_, &field->value);
    if (field->type == WireType::kBytes) {
      uint64_t size = 0;
      p = DecodeVarint64(p, limit_, &size);
      if (p == nullptr || size > static_cast<uint64_t>(limit_ - p)) return nullptr;
      field->bytes = ByteSpan(p, static_cast<size_t>(size));
      return p + size;
    }
    return ReadFixed(p, field);
  }
  const uint8_t* ReadFixed(const uint8_t* p, WireField* field) const {
    const auto left = static_cast<uint64_t>(limit_ - p);
    if (field->type == WireType::kFixed32 && left >= 4) {
      field->value = LoadFixed32(p);
      return p + 4;
    }
    if (field->type == WireType::kFixed64 && left >= 8) {
      field->value = LoadFixed64(p);
      return p + 8;
    }
    return nullptr;  // also groups (3, 4) and the unassigned types (6, 7)
  }

  const uint8_t* cursor_;
  const uint8_t* limit_;
  bool ok_ = true;
};

// Converts a varint to the int32 or int64 that it encodes; protobuf sign-extends negative numbers
// to 64 bits. Returns false if the number does not fit an int32.
inline bool AsInt32(uint64_t varint, int32_t* value) {
  const auto wide = static_cast<int64_t>(varint);
  if (wide < INT32_MIN || wide > INT32_MAX) return false;
  *value = static_cast<int32_t>(wide);
  return true;
}
inline int64_t AsInt64(uint64_t varint) { return static_cast<int64_t>(varint); }

inline void PutTag(uint32_t number, WireType type, std::string* out) {
  PutVarint64(uint64_t{number} << 3 | static_cast<uint64_t>(type), out);
}

inline void PutBytes(uint32_t number, std::string_view bytes, std::string* out) {
  PutTag(number, WireType::kBytes, out);
  PutVarint64(bytes.size(), out);
  out->append(bytes);
}

// Appends a field as it was read.
inline void PutField(const WireField& field, std::string* out) {
  PutTag(field.number, field.type, out);
  switch (field.type) {
    case WireType::kVarint:
      PutVarint64(field.value, out);
      return;
    case WireType::kFixed64:
      PutFixed64(field.value, out);
      return;
    case WireType::kFixed32:
      PutFixed32(static_cast<uint32_t>(field.value), out);
      return;
    case WireType::kBytes:
      PutVarint64(field.bytes.size(), out);
      out->append(AsText(field.bytes));
      return;
  }
}

}  // namespace tensorbundle
