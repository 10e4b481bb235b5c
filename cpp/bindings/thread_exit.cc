// SPDX-License-Identifier: Apache-2.0
// Compiled with -fno-exceptions (cpp/CMakeLists.txt): glibc then leaves the stack with longjmp() to
// run the handler. With exceptions, the handler is a destructor. glibc runs those with the unwinder
// of libgcc, which cannot run the destructors of code that is linked with another unwinder, such
// as LLVM's: the process would crash.
#include "bindings/thread_exit.h"

#include <pthread.h>
#include <unistd.h>

namespace tensorbundle {
namespace {

void Sleep(void* /*unused*/) {
  while (true) ::pause();
}

}  // namespace

void CallOrSleep(void (*call)(const void*), const void* argument) {
  pthread_cleanup_push(Sleep, nullptr);
  call(argument);
  pthread_cleanup_pop(0);
}

}  // namespace tensorbundle
