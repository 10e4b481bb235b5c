// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/slice_key.h"

#include <array>
#include <bit>
#include <optional>

namespace tensorbundle {
namespace {

constexpr char kEscape00 = '\x00';  // 00 FF: a byte 00 of the text; 00 01: the end
constexpr char kEscapeFf = '\xff';  // FF 00: a byte FF of the text
constexpr char kEnd = '\x01';

// The encoding of n bytes starts with n one bits and a zero bit. For n of 9 and 10, the ones reach
// into the second byte.
constexpr std::array<uint8_t, 10> kFirstByteMask = {0x80, 0xc0, 0xe0, 0xf0, 0xf8,
                                                    0xfc, 0xfe, 0xff, 0xff, 0xff};
constexpr std::array<uint8_t, 10> kSecondByteMask = {0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xc0};

// Returns the size of an encoded number: the least n with |value| < 2^(7n-1), in one's complement
// for negative numbers.
size_t SignedSize(int64_t value) {
  const auto magnitude = static_cast<uint64_t>(value < 0 ? ~value : value);
  return static_cast<size_t>(std::bit_width(magnitude)) / 7 + 1;
}

// Returns the size of the number that `bytes` start with, or 0 if it is malformed: the number of
// leading one bits, after inverting a negative number.
size_t SignedSizeAt(std::string_view bytes) {
  if (bytes.empty()) return 0;
  const bool negative = (static_cast<uint8_t>(bytes[0]) & 0x80) == 0;
  const auto byte = [&](size_t i) {
    const auto raw = static_cast<uint8_t>(bytes[i]);
    return static_cast<uint8_t>(negative ? ~raw : raw);
  };
  auto ones = static_cast<size_t>(std::countl_one(byte(0)));
  if (ones == 8 && bytes.size() > 1) ones += static_cast<size_t>(std::countl_one(byte(1)));
  return ones <= kFirstByteMask.size() ? ones : 0;
}

// The Skip and Take functions remove the next value. They return false or nothing if it is
// malformed.
bool SkipSignedNum(std::string_view* rest) {
  const size_t size = SignedSizeAt(*rest);
  if (size == 0 || size > rest->size()) return false;
  rest->remove_prefix(size);
  return true;
}

bool SkipString(std::string_view* rest) {
  for (size_t i = 0; i + 1 < rest->size(); ++i) {
    const char c = (*rest)[i];
    if (c != kEscape00 && c != kEscapeFf) continue;
    const char next = (*rest)[++i];
    if (c == kEscape00 && next == kEnd) {
      rest->remove_prefix(i + 1);
      return true;
    }
    const bool escaped = c == kEscape00 ? next == kEscapeFf : next == kEscape00;
    if (!escaped) return false;
  }
  return false;
}

std::optional<uint64_t> TakeNumIncreasing(std::string_view* rest) {
  if (rest->empty()) return std::nullopt;
  const auto size = static_cast<size_t>(static_cast<uint8_t>((*rest)[0]));
  if (size > sizeof(uint64_t) || size + 1 > rest->size()) return std::nullopt;
  if (size > 0 && (*rest)[1] == 0) return std::nullopt;  // no number has leading zeros
  uint64_t value = 0;
  for (size_t i = 1; i <= size; ++i) value = value << 8 | static_cast<uint8_t>((*rest)[i]);
  rest->remove_prefix(size + 1);
  return value;
}

}  // namespace

void AppendNumIncreasing(uint64_t value, std::string* out) {
  const int size = (static_cast<int>(std::bit_width(value)) + 7) / 8;
  out->push_back(static_cast<char>(size));
  for (int i = size - 1; i >= 0; --i) out->push_back(static_cast<char>(value >> (8 * i)));
}

void AppendOrderedString(std::string_view text, std::string* out) {
  for (const char c : text) {
    out->push_back(c);
    if (c == kEscape00) out->push_back(kEscapeFf);
    if (c == kEscapeFf) out->push_back(kEscape00);
  }
  out->push_back(kEscape00);
  out->push_back(kEnd);
}

void AppendSignedNum(int64_t value, std::string* out) {
  const size_t size = SignedSize(value);
  const size_t begin = out->size();
  for (size_t i = size; i-- > 0;) {
    // Bytes beyond the eighth have only the sign.
    const int64_t shifted = i < 8 ? value >> (8 * i) : (value < 0 ? -1 : 0);
    out->push_back(static_cast<char>(shifted));
  }
  const auto flip = [&](size_t at, uint8_t mask) {
    (*out)[begin + at] = static_cast<char>(static_cast<uint8_t>((*out)[begin + at]) ^ mask);
  };
  flip(0, kFirstByteMask[size - 1]);
  if (kSecondByteMask[size - 1] != 0) flip(1, kSecondByteMask[size - 1]);
}

std::string SliceKey(std::string_view name, EncodedSlice slice) {
  std::string key;
  AppendNumIncreasing(0, &key);
  AppendOrderedString(name, &key);
  AppendNumIncreasing(slice.size(), &key);
  for (const Extent& extent : slice) {
    AppendSignedNum(extent.start, &key);
    AppendSignedNum(extent.length, &key);
  }
  return key;
}

bool IsSliceKey(std::string_view key) {
  std::string_view rest = key;
  if (TakeNumIncreasing(&rest) != 0 || !SkipString(&rest)) return false;
  const std::optional<uint64_t> rank = TakeNumIncreasing(&rest);
  if (!rank) return false;
  for (uint64_t i = 0; i < *rank; ++i) {
    if (!SkipSignedNum(&rest) || !SkipSignedNum(&rest)) return false;
  }
  return rest.empty();
}

}  // namespace tensorbundle
