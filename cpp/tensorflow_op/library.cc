// SPDX-License-Identifier: Apache-2.0
// What happens when TensorFlow loads the library.
#include <cstdint>
#include <cstring>
#include <string>

#include "tensorflow_op/join_cache.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/sole_copy.h"
#include "tensorflow_op/status.h"
#include "tensorflow_op/tf_api.h"

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

// The symbols that the library shows.
#define TENSORBUNDLE_TF_EXPORT extern "C" __attribute__((visibility("default")))

// Why the ops are not there, or "".
TENSORBUNDLE_TF_EXPORT const char* tensorbundle_tf_problem() {
  return tensorbundle::op::problem.c_str();
}

// Joins two vocabularies as the ops do, and keeps the join for them. Returns the code of a
// TF_Status, and puts its message into `message`, of `capacity` bytes; 0, and five numbers, the
// members of a JoinSummary, in `summary`.
TENSORBUNDLE_TF_EXPORT int tensorbundle_tf_join(const char* new_vocab, const char* old_vocab,
                                                int64_t old_size, int64_t count, int64_t table_rows,
                                                int64_t* summary, char* message, size_t capacity) {
  using namespace tensorbundle::op;
  try {
    const JoinSummary found = Summarize({new_vocab, old_vocab, -1, old_size}, count, table_rows);
    std::memcpy(summary, &found, sizeof(found));
    return 0;
  } catch (...) {
    const Failure failure = CurrentFailure();
    message[failure.message.copy(message, capacity - 1)] = '\0';
    return static_cast<int>(failure.code);
  }
}
