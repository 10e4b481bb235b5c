// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/rewrite/record.h"

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/wire.h"

namespace tensorbundle {
namespace {

constexpr uint32_t kOffset = 4;  // BundleEntryProto.offset

void PutTag(uint32_t number, WireType type, std::string* out) {
  PutVarint64(uint64_t{number} << 3 | static_cast<uint64_t>(type), out);
}

void PutField(const WireField& field, std::string* out) {
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

}  // namespace

std::string WithOffset(ByteSpan record, uint64_t offset) {
  std::string result;
  bool placed = offset == 0;  // which proto3 leaves out
  const auto place = [&] {
    PutTag(kOffset, WireType::kVarint, &result);
    PutVarint64(offset, &result);
    placed = true;
  };
  WireReader reader(record);
  WireField field;
  while (reader.Next(&field)) {
    if (field.number == kOffset) continue;
    if (!placed && field.number > kOffset) place();  // where every writer has it
    PutField(field, &result);
  }
  if (!placed) place();
  return result;
}

}  // namespace tensorbundle
