// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tensorbundle {

// Calls `call(argument)`. If the thread is ended inside of it by pthread_exit(), the thread sleeps
// until the process ends instead.
// Requires: `call` throws nothing, and calls C functions only from a frame without destructors.
void CallOrSleep(void (*call)(const void*), const void* argument);

}  // namespace tensorbundle
