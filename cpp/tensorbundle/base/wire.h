// SPDX-License-Identifier: Apache-2.0
// The protobuf wire format, read one field at a time with no allocation and no recursion.
//
// Stricter than a general decoder: groups, field number 0 and numbers above 2^29 - 1 are errors,
// because no TensorFlow ever writes them and every one of them has crashed some reader. Unknown
// fields are for the caller to skip.
#pragma once

#include <cstdint>

#include "tensorbundle/base/bytes.h"

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

// Walks the fields of one message. The message bytes must outlive the reader and its fields.
class WireReader {
 public:
  explicit WireReader(ByteSpan message)
      : cursor_(message.data()), limit_(message.data() + message.size()) {}

  // Moves to the next field. False at the end of the message and at the first malformed byte:
  // `ok()` tells which.
  bool Next(WireField* field);

  // Whether everything read so far was well-formed.
  bool ok() const { return ok_; }

 private:
  const uint8_t* cursor_;
  const uint8_t* limit_;
  bool ok_ = true;
};

// The varint as the int32 or int64 that protobuf stored in it (negatives are sign-extended to 64
// bits). False when an int32 would not fit.
bool AsInt32(uint64_t varint, int32_t* value);
inline int64_t AsInt64(uint64_t varint) { return static_cast<int64_t>(varint); }

}  // namespace tensorbundle
