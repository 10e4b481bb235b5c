// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/v1/values.h"

#include <algorithm>
#include <cstring>

#include "tensorbundle/base/coding.h"

namespace tensorbundle {
namespace {

constexpr WireType kVarint = WireType::kVarint, kFixed32 = WireType::kFixed32,
                   kFixed64 = WireType::kFixed64, kBytes = WireType::kBytes;

// Fields 1 to 3 are type, shape and version, which V1 leaves out and nobody needs; all others up to
// float8_val hold elements, and a record with elements in a field of another type is not what it is
// listed as.
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

// Elements under construction; every value is checked against the room that is left.
class ValueSink {
 public:
  ValueSink(const ValueField& wanted, uint64_t stored_size, MutableByteSpan out)
      : wanted_(wanted),
        stored_size_(stored_size),
        cursor_(out.data()),
        limit_(cursor_ + out.size()) {}

  // Takes a field of the wanted number. False when it does not fit: `fault()` says why.
  bool Take(const WireField& field) {
    if (field.type == wanted_.type) {
      return wanted_.is_dense() ? TakeFixed(field.value) : TakeVarint(field.value);
    }
    if (field.type != kBytes) return Fail("has values of a wrong wire type");
    return wanted_.is_dense() ? TakePackedFixed(field.bytes) : TakePackedVarints(field.bytes);
  }

  bool full() const { return cursor_ == limit_; }
  const std::string& fault() const { return fault_; }

 private:
  bool Fail(std::string fault) {
    fault_ = std::move(fault);
    return false;
  }
  bool FailTooMany() { return Fail("has more values than the slice has elements"); }

  uint64_t room() const { return static_cast<uint64_t>(limit_ - cursor_); }

  bool TakeFixed(uint64_t bits) {
    if (room() < stored_size_) return FailTooMany();
    std::memcpy(cursor_, &bits, stored_size_);
    cursor_ += stored_size_;
    return true;
  }

  bool TakeVarint(uint64_t varint) {
    const int64_t value = AsInt64(varint);
    if (value < wanted_.min || value > wanted_.max) {
      return Fail("has the value " + std::to_string(value) + ", which is no " +
                  DataTypeName(wanted_.dtype));
    }
    return TakeFixed(varint);  // the low bytes of two's complement
  }

  bool TakePackedFixed(ByteSpan packed) {
    if (packed.size() % stored_size_ != 0) return Fail("has a torn value");
    if (packed.size() > room()) return FailTooMany();
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
      if (p == nullptr) return Fail("has a malformed value");
      if (!TakeVarint(value)) return false;
    }
    return true;
  }

  const ValueField& wanted_;
  uint64_t stored_size_;  // bytes of one value among the elements
  uint8_t* cursor_;
  uint8_t* limit_;
  std::string fault_;
};

bool HoldsElements(const WireField& field) {
  return field.number >= kFirstElementField && field.number <= kLastElementField;
}

std::string TooFew(uint64_t num_elements) {
  return "has fewer values than the slice has elements, " + std::to_string(num_elements);
}

std::string OtherField(const WireField& field, DataType wanted) {
  return "has elements in field " + std::to_string(field.number) +
         " of its TensorProto, where no " + DataTypeName(wanted) + " belongs";
}

}  // namespace

const ValueField* FindValueField(DataType dtype) {
  const auto* found = std::find_if(std::begin(kValueFields), std::end(kValueFields),
                                   [&](const ValueField& field) { return field.dtype == dtype; });
  return found == std::end(kValueFields) ? nullptr : found;
}

std::optional<std::string> DecodeValues(ByteSpan tensor_proto, const ValueField& wanted,
                                        uint64_t num_elements, std::vector<uint8_t>* elements) {
  const uint64_t item_size = FindDataType(wanted.dtype)->item_size;
  const uint64_t least_size = wanted.is_dense() ? item_size : 1;
  if (num_elements > tensor_proto.size() / least_size) return TooFew(num_elements);
  elements->resize(num_elements * item_size);
  uint64_t stored_size = item_size;
  if (wanted.is_dense()) stored_size = wanted.type == kFixed32 ? 4 : 8;  // half a complex number
  ValueSink sink(wanted, stored_size, *elements);
  WireReader reader(tensor_proto);
  WireField field;
  while (reader.Next(&field)) {
    if (!HoldsElements(field)) continue;
    if (field.number != wanted.number) return OtherField(field, wanted.dtype);
    if (!sink.Take(field)) return sink.fault();
  }
  if (!reader.ok()) return "is a malformed TensorProto";
  if (!sink.full()) return TooFew(num_elements);
  return std::nullopt;
}

std::optional<std::string> DecodeStringValues(ByteSpan tensor_proto, uint64_t num_elements,
                                              std::vector<std::string>* elements) {
  constexpr uint64_t kLeastSize = 2;  // tag and length of an empty string
  if (num_elements > tensor_proto.size() / kLeastSize) return TooFew(num_elements);
  elements->clear();
  elements->reserve(num_elements);
  const ValueField& wanted = *FindValueField(DataType::kString);
  WireReader reader(tensor_proto);
  WireField field;
  while (reader.Next(&field)) {
    if (!HoldsElements(field)) continue;
    if (!field.Is(wanted.number, wanted.type)) return OtherField(field, DataType::kString);
    if (elements->size() == num_elements) return "has more values than the slice has elements";
    elements->emplace_back(AsText(field.bytes));
  }
  if (!reader.ok()) return "is a malformed TensorProto";
  if (elements->size() != num_elements) return TooFew(num_elements);
  return std::nullopt;
}

}  // namespace tensorbundle
