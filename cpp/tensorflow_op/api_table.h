// SPDX-License-Identifier: Apache-2.0
// TensorFlow's functions, found in the process that loaded us.
#pragma once

#include <string>

#include "tensorflow_op/c_api.h"

namespace tensorbundle::op {

// Pointers to the functions of c_api.h, by their names without "TF_".
struct ApiTable {
#define TENSORBUNDLE_TF_POINTER(result, name, arguments) result(*name) arguments = nullptr;
  TENSORBUNDLE_TF_FUNCTIONS(TENSORBUNDLE_TF_POINTER)
#undef TENSORBUNDLE_TF_POINTER

  // Copies bytes into a string element. Null where this TensorFlow does not export it.
  void (*StringCopy)(TF_TString*, const char* bytes, size_t size) = nullptr;
};

// Fills the table that Tf() returns. False, and why in `problem`, when TensorFlow is not loaded or
// lacks a function. Called once, when the library is loaded.
bool FindTensorflow(std::string* problem);

// The table. Thread-safe once filled.
const ApiTable& Tf();

}  // namespace tensorbundle::op
