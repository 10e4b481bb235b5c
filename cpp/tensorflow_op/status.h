// SPDX-License-Identifier: Apache-2.0
// Conversion of exceptions to TensorFlow's status codes.
#pragma once

#include <stdexcept>
#include <string>

#include "tensorflow_op/tf_api.h"

namespace tensorbundle::op {

// An error with an explicit status code.
class OpError : public std::runtime_error {
 public:
  OpError(Code code, const std::string& message)
      : std::runtime_error(message), code_(code), message_(message) {}
  Code code() const { return code_; }
  // The whole message. what() ends at the first NUL byte, and names may contain one.
  const std::string& message() const { return message_; }

 private:
  Code code_;
  std::string message_;
};

struct Failure {
  Code code;
  std::string message;
};

// Converts the exception that is being handled.
// Requires: called in a catch block.
// Returns: a message in valid UTF-8 without NUL bytes, as Python requires, and short enough for
// gRPC. Other bytes of names and paths are escaped.
Failure CurrentFailure();

// As above, with the codes of TensorFlow's own kernels: OUT_OF_RANGE for a file that is too short,
// INVALID_ARGUMENT for elements that are stored nowhere.
Failure CurrentStockFailure();

}  // namespace tensorbundle::op
