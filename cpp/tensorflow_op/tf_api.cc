// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/tf_api.h"

#include <dlfcn.h>
#include <cstring>

namespace tensorbundle::op {
namespace {

#ifdef __APPLE__
constexpr const char* kFramework = "libtensorflow_framework.2.dylib";
constexpr const char* kCc = "libtensorflow_cc.2.dylib";
#else
constexpr const char* kFramework = "libtensorflow_framework.so.2";
constexpr const char* kCc = "libtensorflow_cc.so.2";
#endif

ApiTable table;

// Looks up symbols in a library that the process has loaded already. Never loads a library.
class LoadedLibrary {
 public:
  explicit LoadedLibrary(const char* name) : handle_(::dlopen(name, RTLD_LAZY | RTLD_NOLOAD)) {}
  ~LoadedLibrary() {
    if (handle_ != nullptr) ::dlclose(handle_);
  }
  LoadedLibrary(const LoadedLibrary&) = delete;
  LoadedLibrary& operator=(const LoadedLibrary&) = delete;

  bool loaded() const { return handle_ != nullptr; }

  template <typename Function>
  bool Find(const char* name, Function** function) const {
    void* address = handle_ == nullptr ? nullptr : ::dlsym(handle_, name);
    if (address == nullptr) return false;
    static_assert(sizeof(address) == sizeof(*function));
    std::memcpy(function, &address, sizeof(address));  // POSIX: a function pointer fits in a void*
    return true;
  }

 private:
  void* handle_;
};

}  // namespace

bool FindTensorflow(std::string* error) {
  const LoadedLibrary framework(kFramework);
  if (!framework.loaded()) {
    *error = std::string(kFramework) + " is not loaded: import tensorflow first";
    return false;
  }
#define TENSORBUNDLE_TF_FIND(result, name, arguments)                                     \
  if (!framework.Find("TF_" #name, &table.name)) {                                        \
    *error = "this TensorFlow does not export TF_" #name "; 2.15 and newer are known to"; \
    return false;                                                                         \
  }
  TENSORBUNDLE_TF_FUNCTIONS(TENSORBUNDLE_TF_FIND)
#undef TENSORBUNDLE_TF_FIND
  // The others are in another library. Only tensors of strings need those of strings.
  const LoadedLibrary cc(kCc);
  if (!cc.Find("TF_GetRegisteredKernelsForOp", &table.GetRegisteredKernelsForOp) ||
      !cc.Find("TF_DeleteBuffer", &table.DeleteBuffer)) {
    *error = std::string(kCc) + " does not export TF_GetRegisteredKernelsForOp";
    return false;
  }
  cc.Find("TF_StringCopy", &table.StringCopy);
  cc.Find("TF_StringGetDataPointer", &table.StringGetDataPointer);
  cc.Find("TF_StringGetSize", &table.StringGetSize);
  table.eager.is_complete = true;
#define TENSORBUNDLE_TFE_FIND(result, name, prefix, arguments) \
  if (!cc.Find(prefix #name, &table.eager.name) &&             \
      !framework.Find(prefix #name, &table.eager.name)) {      \
    table.eager.is_complete = false;                           \
  }
  TENSORBUNDLE_TFE_FUNCTIONS(TENSORBUNDLE_TFE_FIND)
#undef TENSORBUNDLE_TFE_FIND
  return true;
}

const ApiTable& Tf() { return table; }

}  // namespace tensorbundle::op
