// SPDX-License-Identifier: Apache-2.0
// Borrowed, untyped bytes of files and memory. They are never dereferenced as a wider type.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace tensorbundle {

// Borrowed bytes. Each function that returns a span names their owner.
using ByteSpan = std::span<const uint8_t>;
using MutableByteSpan = std::span<uint8_t>;

inline std::string_view AsText(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline ByteSpan AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace tensorbundle
