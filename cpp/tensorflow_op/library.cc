// SPDX-License-Identifier: Apache-2.0
// What happens when TensorFlow loads the library.
#include <string>

#include "tensorflow_op/api_table.h"
#include "tensorflow_op/failure.h"
#include "tensorflow_op/registration.h"
#include "tensorflow_op/sole_copy.h"

namespace tensorbundle::op {
namespace {

std::string problem;  // why nothing was registered; set once, while the library is loaded

void Load() {
  try {
    if (!IsSoleCopy(&problem) || !FindTensorflow(&problem)) return;
    RegisterReadOp();
    RegisterMapOp();
    RegisterVerifyOp();
    RegisterMissingOp();
    RegisterRemapOp();
  } catch (...) {
    problem = CurrentFailure().message;
  }
}

struct Loader {
  Loader() { Load(); }
} loader;

}  // namespace
}  // namespace tensorbundle::op

// Why the ops are not there, or "". The only symbol that the library shows.
extern "C" __attribute__((visibility("default"))) const char* tensorbundle_tf_problem() {
  return tensorbundle::op::problem.c_str();
}
