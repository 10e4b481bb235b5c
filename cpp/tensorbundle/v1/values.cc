// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/values.h"

#include <algorithm>
#include <cstring>

#include "tensorbundle/base/coding.h"

namespace tensorbundle {
namespace {

using Kind = ValuesError::Kind;

constexpr WireType kVarint = WireType::kVarint, kFixed32 = WireType::kFixed32,
                   kFixed64 = WireType::kFixed64, kBytes = WireType::kBytes;

// Fields 1 to 3 are the type, the shape and the version, which V1 omits. All others up to
// float8_val have elements. Elements in the field of another type are an error.
constexpr uint32_t kFirstElementField = 4, kLastElementField = 18;

constexpr ValueField kValueFields[] = {
    {DataType::kFloat, 5, kFixed32, 0, 0},
    {DataType::kDouble, 6, kFixed64, 0, 0},
    {DataType::kInt32, 7, kVarint, INT32_MIN, INT32_MAX},
    {DataType::kUint8, 7, kVarint, 0, UINT8_MAX},
    {DataType::kInt16, 7, kVarint, INT16_MIN, INT16_MAX},
    {DataType::kInt8, 7, kVarint, INT8_MIN, INT8_MAX},
    {DataType::kString, 8, kBytes, 0, 0},
    {DataType::kComplex64, 9, kFixed32, 0, 0},
    {DataType::kInt64, 10, kVarint, INT64_MIN, INT64_MAX},
    {DataType::kBool, 11, kVarint, 0, 1},
    {DataType::kQint8, 7, kVarint, INT8_MIN, INT8_MAX},
    {DataType::kQuint8, 7, kVarint, 0, UINT8_MAX},
    {DataType::kQint32, 7, kVarint, INT32_MIN, INT32_MAX},
    {DataType::kQuint16, 7, kVarint, 0, UINT16_MAX},
    {DataType::kUint16, 7, kVarint, 0, UINT16_MAX},
    {DataType::kComplex128, 12, kFixed64, 0, 0},
    {DataType::kHalf, 13, kVarint, 0, UINT16_MAX},  // its bits
};

// The output buffer. Every value is checked against the space that is left.
class ValueSink {
 public:
  ValueSink(const ValueField& wanted, uint64_t stored_size, MutableByteSpan out)
      : wanted_(wanted),
        stored_size_(stored_size),
        cursor_(out.data()),
        limit_(cursor_ + out.size()) {}

  // Appends the values of a field. Returns false if they are invalid; error() tells why.
  // Requires: field.number == wanted.number.
  bool Take(const WireField& field) {
    if (field.type == wanted_.type) {
      return wanted_.is_dense() ? TakeFixed(field.value) : TakeVarint(field.value);
    }
    if (field.type != kBytes) return Fail(Kind::kWireType);
    return wanted_.is_dense() ? TakePackedFixed(field.bytes) : TakePackedVarints(field.bytes);
  }

  bool full() const { return cursor_ == limit_; }
  const ValuesError& error() const { return error_; }

 private:
  bool Fail(Kind kind, int64_t value = 0) {
    error_.kind = kind;
    error_.value = value;
    return false;
  }

  uint64_t room() const { return static_cast<uint64_t>(limit_ - cursor_); }

  bool TakeFixed(uint64_t bits) {
    if (room() < stored_size_) return Fail(Kind::kTooMany);
    std::memcpy(cursor_, &bits, stored_size_);
    cursor_ += stored_size_;
    return true;
  }

  bool TakeVarint(uint64_t varint) {
    const int64_t value = AsInt64(varint);
    if (value < wanted_.min || value > wanted_.max) {
      return Fail(Kind::kRange, value);
    }
    return TakeFixed(varint);  // the low bytes of two's complement
  }

  bool TakePackedFixed(ByteSpan packed) {
    if (packed.size() % stored_size_ != 0) return Fail(Kind::kTornValue);
    if (packed.size() > room()) return Fail(Kind::kTooMany);
    if (!packed.empty()) std::memcpy(cursor_, packed.data(), packed.size());
    cursor_ += packed.size();
    return true;
  }

  bool TakePackedVarints(ByteSpan packed) {
    const uint8_t* p = packed.data();
    const uint8_t* limit = p + packed.size();
    while (p != limit) {
      uint64_t value = *p;
      p = value < 0x80 ? p + 1 : DecodeVarint64(p, limit, &value);
      if (p == nullptr) return Fail(Kind::kMalformedValue);
      if (!TakeVarint(value)) return false;
    }
    return true;
  }

  const ValueField& wanted_;
  uint64_t stored_size_;  // bytes of one value among the elements
  uint8_t* cursor_;
  uint8_t* limit_;
  ValuesError error_;
};

bool HoldsElements(const WireField& field) {
  return field.number >= kFirstElementField && field.number <= kLastElementField;
}

}  // namespace

const ValueField* FindValueField(DataType dtype) {
  const auto* found = std::find_if(std::begin(kValueFields), std::end(kValueFields),
                                   [&](const ValueField& field) { return field.dtype == dtype; });
  return found == std::end(kValueFields) ? nullptr : found;
}

ValuesError DecodeValues(ByteSpan tensor_proto, const ValueField& wanted, uint64_t num_elements,
                         std::vector<uint8_t>* elements) {
  const uint64_t item_size = FindDataType(wanted.dtype)->item_size;
  const uint64_t least_size = wanted.is_dense() ? item_size : 1;
  if (num_elements > tensor_proto.size() / least_size) return {Kind::kTooFew};
  elements->resize(num_elements * item_size);
  uint64_t stored_size = item_size;
  if (wanted.is_dense()) stored_size = wanted.type == kFixed32 ? 4 : 8;  // half a complex number
  ValueSink sink(wanted, stored_size, *elements);
  WireReader reader(tensor_proto);
  WireField field;
  while (reader.Next(&field)) {
    if (!HoldsElements(field)) continue;
    if (field.number != wanted.number) return {Kind::kOtherField, field.number};
    if (!sink.Take(field)) return sink.error();
  }
  if (!reader.ok()) return {Kind::kMalformed};
  if (!sink.full()) return {Kind::kTooFew};
  return {};
}

ValuesError DecodeStringValues(ByteSpan tensor_proto, uint64_t num_elements,
                               std::vector<std::string>* elements) {
  constexpr uint64_t kLeastSize = 2;  // tag and length of an empty string
  if (num_elements > tensor_proto.size() / kLeastSize) return {Kind::kTooFew};
  elements->clear();
  elements->reserve(num_elements);
  const ValueField& wanted = *FindValueField(DataType::kString);
  WireReader reader(tensor_proto);
  WireField field;
  while (reader.Next(&field)) {
    if (!HoldsElements(field)) continue;
    if (!field.Is(wanted.number, wanted.type)) return {Kind::kOtherField, field.number};
    if (elements->size() == num_elements) return {Kind::kTooMany};
    elements->emplace_back(AsText(field.bytes));
  }
  if (!reader.ok()) return {Kind::kMalformed};
  if (elements->size() != num_elements) return {Kind::kTooFew};
  return {};
}

}  // namespace tensorbundle
