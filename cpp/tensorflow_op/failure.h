// SPDX-License-Identifier: Apache-2.0
// Errors in TensorFlow's terms: the one place where exceptions become status codes.
#pragma once

#include <stdexcept>
#include <string>

#include "tensorflow_op/c_api.h"

namespace tensorbundle::op {

// Thrown where TensorFlow has its own code for what is wrong.
class OpError : public std::runtime_error {
 public:
  OpError(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Code code() const { return code_; }

 private:
  Code code_;
};

struct Failure {
  Code code;
  std::string message;
};

// What the exception being handled means. Call it in a handler.
Failure CurrentFailure();

}  // namespace tensorbundle::op
