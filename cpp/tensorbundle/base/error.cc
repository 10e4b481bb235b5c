// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/base/error.h"

#include <cerrno>
#include <cstdio>

namespace tensorbundle {

void ThrowSystemError(const std::string& what, const std::string& path) {
  const int error = errno;  // composing the message may change it
  throw IOFailure("cannot " + what + " " + path, path, error);
}

std::string EscapeBytes(std::string_view name) {
  std::string text = "'";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      text += c;
    } else {
      char escaped[5];
      std::snprintf(escaped, sizeof(escaped), "\\x%02x", byte);
      text += escaped;
    }
  }
  return text + "'";
}

}  // namespace tensorbundle
