// SPDX-License-Identifier: Apache-2.0
// Little-endian and varint numbers. Every decoder takes a cursor and a limit, and returns the new
// cursor. It never reads past the limit. On failure it returns null and leaves the output
// unchanged.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>

namespace tensorbundle {

static_assert(std::endian::native == std::endian::little,
              "tensorbundle serves little-endian tensor bytes without a copy");

inline constexpr int kMaxVarint32Size = 5;
inline constexpr int kMaxVarint64Size = 10;

inline uint32_t LoadFixed32(const uint8_t* p) {
  uint32_t value = 0;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

inline uint64_t LoadFixed64(const uint8_t* p) {
  uint64_t value = 0;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

// DecodeVarint64 without the fast path.
[[gnu::noinline]] inline const uint8_t* DecodeLongVarint64(const uint8_t* p, const uint8_t* limit,
                                                           uint64_t* value) {
  uint64_t result = 0;
  for (int shift = 0; p < limit; shift += 7) {
    const uint64_t byte = *p++;
    if (shift == 7 * (kMaxVarint64Size - 1) && byte > 1) return nullptr;  // the last byte
    result |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      *value = result;
      return p;
    }
  }
  return nullptr;
}

// Reads a base-128 varint of at most ten bytes. Bits beyond the 64th are an error.
inline const uint8_t* DecodeVarint64(const uint8_t* p, const uint8_t* limit, uint64_t* value) {
  if (p < limit && *p < 0x80) {  // tags, lengths and most numbers take one byte
    *value = *p;
    return p + 1;
  }
  return DecodeLongVarint64(p, limit, value);
}

inline const uint8_t* DecodeVarint32(const uint8_t* p, const uint8_t* limit, uint32_t* value) {
  uint64_t wide = 0;
  const uint8_t* next = DecodeVarint64(p, limit, &wide);
  if (next == nullptr || next - p > kMaxVarint32Size || wide > UINT32_MAX) return nullptr;
  *value = static_cast<uint32_t>(wide);
  return next;
}

inline void PutFixed32(uint32_t value, std::string* out) {
  char bytes[sizeof(value)];
  std::memcpy(bytes, &value, sizeof(value));
  out->append(bytes, sizeof(bytes));
}

inline void PutFixed64(uint64_t value, std::string* out) {
  char bytes[sizeof(value)];
  std::memcpy(bytes, &value, sizeof(value));
  out->append(bytes, sizeof(bytes));
}

// Appends the shortest encoding.
inline void PutVarint64(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

}  // namespace tensorbundle
