// SPDX-License-Identifier: Apache-2.0
// The checksum of strings and variants, in one pass and without holding them: it is not that of the
// stored bytes. docs/format.md, "V2: a bundle".
#pragma once

#include <cstdint>
#include <optional>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/bundle/catalog.h"

namespace tensorbundle {

// Follows the stored bytes of one slice: for strings the lengths, their checksum, the payloads; for
// variants these three once per element.
class ElementsChecksum {
 public:
  // `encoding` is kStrings or kVariants.
  ElementsChecksum(Encoding encoding, uint64_t num_elements, bool big_endian);

  // Takes the next bytes.
  void Extend(ByteSpan bytes);

  // The checksum that the slice's record must have. Nothing when the bytes so far are not exactly
  // such elements, or one of the checksums among them differs.
  std::optional<uint32_t> Value() const;

 private:
  enum class Phase : uint8_t { kLength, kChecksum, kPayload, kEnd, kMalformed };
  void TakeLengthByte(uint8_t byte);
  void TakeChecksumByte(uint8_t byte);
  ByteSpan TakePayload(ByteSpan bytes);
  void EndLength();
  void ExtendWithLength();
  Phase AfterChecksum() const;

  Encoding encoding_;
  bool big_endian_;
  uint64_t lengths_left_;
  uint64_t payload_left_ = 0;
  Phase phase_;
  uint32_t crc_ = 0;
  uint64_t number_ = 0;  // the length or checksum that is being put together
  int number_size_ = 0;  // how many of its bytes have come
};

}  // namespace tensorbundle
