// SPDX-License-Identifier: Apache-2.0
// Runs a function in a forked child.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

// Writes the counts of a build with TENSORBUNDLE_COVERAGE, which _exit() does not.
extern "C" int __llvm_profile_write_file() __attribute__((weak));

namespace tensorbundle::testing {

// Returns the exit status of the child: 0 if `body` returned true, 1 if it returned false or threw.
template <typename Body>
int RunInForkedChild(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    bool ok = false;
    try {
      ok = body();
    } catch (...) {
    }
    if (__llvm_profile_write_file != nullptr) __llvm_profile_write_file();
    ::_exit(ok ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace tensorbundle::testing
