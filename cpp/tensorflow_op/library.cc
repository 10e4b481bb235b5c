// SPDX-License-Identifier: Apache-2.0
// The op library's entry points: a static initializer that registers the ops when TensorFlow loads
// the library, and the C functions that Python calls.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#ifdef __linux__
#include <link.h>
#endif

#include "tensorflow_op/join_cache.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/remote_files.h"
#include "tensorflow_op/status.h"
#include "tensorflow_op/tf_api.h"

namespace tensorbundle::op {
namespace {

#ifdef __linux__
constexpr std::string_view kLibraryName = "libtensorbundle_tf.so";

int AddOpLibrary(dl_phdr_info* info, size_t, void* found) {
  const std::string_view path = info->dlpi_name;
  if (path.ends_with(kLibraryName)) {
    static_cast<std::vector<std::string>*>(found)->emplace_back(path);
  }
  return 0;
}
#endif

// Returns true, and sets `*error`, if the process has loaded another copy of this library. Two
// copies would register every kernel twice, and TensorFlow could run none of them.
bool HasDuplicateLibrary(std::string* error) {
#ifdef __linux__
  Dl_info own{};
  std::vector<std::string> found;
  ::dl_iterate_phdr(&AddOpLibrary, &found);
  if (::dladdr(reinterpret_cast<const void*>(&AddOpLibrary), &own) == 0) return false;
  for (const std::string& path : found) {
    if (path == own.dli_fname) continue;
    *error = "another copy of the op library is loaded already: " + path;
    return true;
  }
#endif
  return false;
}

std::string load_error;  // why no op was registered, or ""; set once, while the library is loaded

void Load() {
  try {
    if (HasDuplicateLibrary(&load_error) || !FindTensorflow(&load_error)) return;
    RegisterReadOp();
    RegisterMapOp();
    RegisterVerifyOp();
    RegisterMissingOp();
    RegisterRemapOp();
  } catch (...) {
    load_error = CurrentFailure().message;
  }
}

struct Loader {
  Loader() { Load(); }
} loader;

}  // namespace
}  // namespace tensorbundle::op

// The exported symbols (exports.map).
#define TENSORBUNDLE_TF_EXPORT extern "C" __attribute__((visibility("default")))

// Returns why the ops are not registered, or "".
TENSORBUNDLE_TF_EXPORT const char* tensorbundle_tf_error() {
  return tensorbundle::op::load_error.c_str();
}

// Registers kernels for TensorFlow's own ops, once. They serve the process until it ends.
// Returns: a TF_Code, and the message as tensorbundle_tf_join() does.
TENSORBUNDLE_TF_EXPORT int tensorbundle_tf_register_kernels(char* message, size_t capacity) {
  using namespace tensorbundle::op;
  static std::mutex mutex;
  static bool is_registered = false;
  const std::lock_guard lock(mutex);
  if (is_registered) return 0;
  try {
    RegisterRestoreKernel();
    RegisterWarmStartKernels();
    is_registered = true;
    return 0;
  } catch (...) {
    const Failure failure = CurrentFailure();
    message[failure.message.copy(message, capacity - 1)] = '\0';
    return static_cast<int>(failure.code);
  }
}

// Writes the number of calls of RestoreV2, GenerateVocabRemapping and LoadAndRemapMatrix that these
// kernels have served.
TENSORBUNDLE_TF_EXPORT void tensorbundle_tf_kernel_calls(int64_t* calls) {
  using namespace tensorbundle::op;
  for (int op = 0; op < kNumStockOps; ++op) calls[op] = NumCalls(StockOp{op});
}

// Registers the functions of remote_files.h, or unregisters them if they are null.
TENSORBUNDLE_TF_EXPORT void tensorbundle_tf_set_remote_files(
    void (*open)(int64_t, const char*, int64_t*, void*),
    void (*read)(int64_t, int64_t, int64_t, const uint8_t**, int64_t*, void*),
    void (*close)(int64_t), void (*glob)(const char*, int64_t*, void*), void (*interrupt)()) {
  tensorbundle::op::SetRemoteFunctions({open, read, close, glob, interrupt});
}

// Appends bytes to the `reply` of one of these functions.
TENSORBUNDLE_TF_EXPORT void tensorbundle_tf_append(void* reply, const char* bytes, size_t size) {
  tensorbundle::op::AppendTo(reply, {bytes, size});
}

// Joins two vocabularies as the ops do, and caches the join for them.
// Returns: a TF_Code. On success writes the five members of a JoinSummary to `summary`; on failure
// writes the message to `message`, which has room for `capacity` bytes.
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
