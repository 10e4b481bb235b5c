// SPDX-License-Identifier: Apache-2.0
// The op library's entry points: a static initializer that registers ops and kernels when the
// library is loaded, and the C functions that Python calls.
//
// A process may load several copies of the library: by several paths, or of several versions. The
// first one that finds TensorFlow serves the process; the others see its kernels in TensorFlow's
// registry, which every build can read, and register nothing. The dynamic loader runs static
// initializers one at a time, so two threads cannot register at once.
#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tensorflow_op/join_cache.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/remote_files.h"
#include "tensorflow_op/status.h"
#include "tensorflow_op/tf_api.h"

// The exported symbols (exports.map). Another version of the library may call the first two, so
// their meaning never changes under one name.
#define TENSORBUNDLE_TF_EXPORT extern "C" __attribute__((visibility("default")))

TENSORBUNDLE_TF_EXPORT const char* tensorbundle_tf_error();
TENSORBUNDLE_TF_EXPORT int64_t tensorbundle_tf_op_calls(const char* op);

namespace tensorbundle::op {
namespace {

struct Op {
  const char* name;
  void (*register_op)();
};

constexpr Op kOps[] = {
    {"TensorbundleReadV1", &RegisterReadOp},     {"TensorbundleMapV1", &RegisterMapOp},
    {"TensorbundleVerifyV1", &RegisterVerifyOp}, {"TensorbundleMissingV1", &RegisterMissingOp},
    {"TensorbundleRemapV1", &RegisterRemapOp},
};

std::string load_error;  // why nothing was registered, or ""; set once, by Load()
decltype(&tensorbundle_tf_op_calls) other_op_calls = nullptr;  // of the copy that serves instead

int AddPath(dl_phdr_info* info, size_t, void* paths) {
  static_cast<std::vector<std::string>*>(paths)->emplace_back(info->dlpi_name);
  return 0;
}

// Finds the copy of this library that has registered its ops. Returns its path, and "an unknown
// file" if it does not export the functions above.
std::string FindOtherCopy() {
  std::vector<std::string> paths;
  ::dl_iterate_phdr(&AddPath, &paths);
  for (const std::string& path : paths) {
    void* library = path.empty() ? nullptr : ::dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (library == nullptr) continue;
    const auto error = reinterpret_cast<decltype(&tensorbundle_tf_error)>(
        ::dlsym(library, "tensorbundle_tf_error"));
    const auto op_calls = reinterpret_cast<decltype(&tensorbundle_tf_op_calls)>(
        ::dlsym(library, "tensorbundle_tf_op_calls"));
    ::dlclose(library);  // it stays loaded: this call only undoes dlopen()
    if (error == nullptr || error == &tensorbundle_tf_error || *error() != '\0') continue;
    other_op_calls = op_calls;
    return path;
  }
  return "an unknown file";
}

void Load() {
  try {
    if (!FindTensorflow(&load_error)) return;
    for (const Op& op : kOps) {
      if (!HasKernel(op.name, 0)) continue;
      load_error = "another copy of tensorbundle's op library was loaded first, " + FindOtherCopy();
      return;
    }
    for (const Op& op : kOps) op.register_op();
    RegisterRestoreKernel();
    RegisterWarmStartKernels();
  } catch (...) {
    load_error = CurrentFailure().message;
  }
}

struct Loader {
  Loader() { Load(); }
} loader;

}  // namespace
}  // namespace tensorbundle::op

// Returns why this copy has registered no ops, or "".
const char* tensorbundle_tf_error() { return tensorbundle::op::load_error.c_str(); }

// Returns how many calls of an op of TensorFlow have run the kernel of this library, or of the copy
// that serves the process instead; -1 if no such kernel is registered.
int64_t tensorbundle_tf_op_calls(const char* op) {
  using namespace tensorbundle::op;
  if (other_op_calls != nullptr) return other_op_calls(op);
  for (size_t i = 0; i < kStockOpNames.size(); ++i) {
    if (std::strcmp(op, kStockOpNames[i]) == 0) return NumCalls(static_cast<StockOp>(i));
  }
  return -1;
}

// Registers the functions of remote_files.h, or unregisters them if they are null.
TENSORBUNDLE_TF_EXPORT void tensorbundle_tf_set_remote_files(
    void (*open)(int64_t, const char*, int64_t, int64_t*, void*),
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
