// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/wire.h"

#include "tensorbundle/base/coding.h"

namespace tensorbundle {
namespace {

constexpr uint64_t kMaxFieldNumber = (uint64_t{1} << 29) - 1;  // protobuf's own limit

// Reads the payload of a field whose tag is known. Null when it is malformed.
const uint8_t* DecodePayload(const uint8_t* p, const uint8_t* limit, WireField* field) {
  const auto left = static_cast<uint64_t>(limit - p);
  switch (field->type) {
    case WireType::kVarint:
      return DecodeVarint64(p, limit, &field->value);
    case WireType::kFixed64:
      if (left < 8) return nullptr;
      field->value = LoadFixed64(p);
      return p + 8;
    case WireType::kFixed32:
      if (left < 4) return nullptr;
      field->value = LoadFixed32(p);
      return p + 4;
    case WireType::kBytes: {
      uint64_t size = 0;
      p = DecodeVarint64(p, limit, &size);
      if (p == nullptr || size > static_cast<uint64_t>(limit - p)) return nullptr;
      field->bytes = ByteSpan(p, static_cast<size_t>(size));
      return p + size;
    }
  }
  return nullptr;  // groups (3, 4) and the unassigned types (6, 7)
}

}  // namespace

bool WireReader::Next(WireField* field) {
  if (!ok_ || cursor_ == limit_) return false;
  uint64_t tag = 0;
  const uint8_t* p = DecodeVarint64(cursor_, limit_, &tag);
  const uint64_t number = tag >> 3;
  ok_ = p != nullptr && number != 0 && number <= kMaxFieldNumber;
  if (!ok_) return false;
  field->number = static_cast<uint32_t>(number);
  field->type = static_cast<WireType>(tag & 7);
  field->value = 0;
  field->bytes = {};
  cursor_ = DecodePayload(p, limit_, field);
  ok_ = cursor_ != nullptr;
  return ok_;
}

bool AsInt32(uint64_t varint, int32_t* value) {
  const auto wide = static_cast<int64_t>(varint);
  if (wide < INT32_MIN || wide > INT32_MAX) return false;
  *value = static_cast<int32_t>(wide);
  return true;
}

}  // namespace tensorbundle
