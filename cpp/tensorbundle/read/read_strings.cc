// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_strings.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

// Returns the message for an error in the stored bytes.
std::string Describe(const DecodedElements& decoded, Encoding encoding) {
  switch (decoded.error) {
    case ElementsError::kNone:
    case ElementsError::kLength:
      return "a length is malformed";
    case ElementsError::kTooLong:
      return "an element claims " + std::to_string(decoded.claimed) + " bytes, " +
             std::to_string(decoded.left) + " are left";
    case ElementsError::kLengthsChecksum:
      return "the checksum of its string lengths differs";
    case ElementsError::kElementChecksum:
      return "the checksum of its element " + std::to_string(decoded.number) + " differs";
    case ElementsError::kTrailingBytes:
      return std::to_string(decoded.left) + " bytes follow its last " +
             (encoding == Encoding::kStrings ? "string" : "element");
  }
  return "a length is malformed";
}

StringElements FromRecord(const Checkpoint& checkpoint, const Tensor& tensor,
                          const StoredSlice& slice) {
  // One buffer for all strings, as for a V2 slice.
  const std::vector<std::string> strings = checkpoint.records()->DecodeStrings(tensor, slice);
  ElementOffsets offsets;
  offsets.numbers.push_back(0);
  for (const std::string& text : strings) {
    offsets.numbers.push_back(offsets.numbers.back() + text.size());
  }
  auto bytes = std::make_unique_for_overwrite<uint8_t[]>(offsets.numbers.back());
  for (size_t i = 0; i < strings.size(); ++i) {
    std::copy(strings[i].begin(), strings[i].end(), bytes.get() + offsets.numbers[i]);
  }
  return {std::move(bytes), std::move(offsets)};
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
  auto memory = std::make_unique_for_overwrite<uint8_t[]>(slice.size);
  const MutableByteSpan bytes(memory.get(), slice.size);
  checkpoint.files().Get(slice.file).ReadAt(slice.offset, bytes);
  DecodedElements decoded =
      DecodeElements(bytes, slice.encoding, count, checkpoint.catalog().big_endian, verify);
  if (decoded.error != ElementsError::kNone) {
    throw CorruptionError(checkpoint.files().Get(slice.file).path() + ": " +
                          Describe(checkpoint.catalog(), tensor, slice) + " at offset " +
                          std::to_string(slice.offset) + ": " + Describe(decoded, slice.encoding));
  }
  if (verify) FinishVerify(checkpoint, tensor, slice, decoded.checksum);
  return {std::move(memory), std::move(decoded.offsets)};
}

}  // namespace tensorbundle
