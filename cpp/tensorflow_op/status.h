// SPDX-License-Identifier: Apache-2.0
// Errors in TensorFlow's terms: the one place where exceptions become status codes.
#pragma once

#include <stdexcept>
#include <string>

#include "tensorflow_op/tf_api.h"

namespace tensorbundle::op {

// Thrown where TensorFlow has its own code for what is wrong.
class OpError : public std::runtime_error {
 public:
  OpError(Code code, const std::string& message)
      : std::runtime_error(message), code_(code), message_(message) {}
  Code code() const { return code_; }
  // As what(), which ends at the first NUL byte: names may have some.
  const std::string& message() const { return message_; }

 private:
  Code code_;
  std::string message_;
};

struct Failure {
  Code code;
  std::string message;
};

// What the exception being handled means. Call it in a handler. The message is UTF-8 without NUL
// bytes, whatever names and paths are in it, as Python needs it, and not too long for gRPC.
Failure CurrentFailure();

}  // namespace tensorbundle::op
