// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/sole_copy.h"

#include <dlfcn.h>

#include <string_view>
#include <vector>

#ifdef __linux__
#include <link.h>
#endif

namespace tensorbundle::op {
namespace {

#ifdef __linux__
constexpr std::string_view kName = "libtensorbundle_tf.so";

int AddOurs(dl_phdr_info* info, size_t, void* found) {
  const std::string_view path = info->dlpi_name;
  if (path.ends_with(kName)) static_cast<std::vector<std::string>*>(found)->emplace_back(path);
  return 0;
}
#endif

}  // namespace

bool IsSoleCopy(std::string* problem) {
#ifdef __linux__
  Dl_info own{};
  std::vector<std::string> found;
  ::dl_iterate_phdr(&AddOurs, &found);
  if (::dladdr(reinterpret_cast<const void*>(&AddOurs), &own) == 0) return true;
  for (const std::string& path : found) {
    if (path == own.dli_fname) continue;
    *problem = "another copy of the op library is loaded already: " + path;
    return false;
  }
#endif
  return true;
}

}  // namespace tensorbundle::op
