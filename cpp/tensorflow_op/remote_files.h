// SPDX-License-Identifier: Apache-2.0
// Paths as TensorFlow's kernels take them, and files that are not local.
//
//   "ram://x", "gs://x"     remote: Python reads them with tf.io.gfile, by four functions that the
//                           library asks it to register when it first needs them
//   "file://host/x", "/x"   local: the core opens them
//
// Python's functions take the GIL. Only the thread that runs an op calls them: it may hold the GIL,
// and then another thread could not take it. No lock is held during a call. Nothing that is read
// from a remote file may be cached for another op: some file systems store no times of change.
//
// Known deadlock: with asynchronous eager execution, TensorFlow 2.15 keeps the GIL while it waits
// for the shape of a result.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/io/file.h"

namespace tensorbundle::op {

// They write a number to `*result`, or for an error its negative TF_Code, and append the message to
// `reply` with AppendTo(). If a signal interrupts Python, they may write nothing: the return value
// of a function would be undefined then.
struct RemoteFunctions {
  // Opens a file. The caller has chosen the number `file`. A file of at most `max_whole` bytes is
  // not kept open: its bytes are appended to `reply`. Result: the size.
  void (*open)(int64_t file, const char* path, int64_t max_whole, int64_t* result,
               void* reply) = nullptr;
  // Reads at most `size` bytes. Writes their address, which is valid until the next call for the
  // file, also while the interpreter ends. Result: the number of bytes read.
  void (*read)(int64_t file, int64_t offset, int64_t size, const uint8_t** data, int64_t* result,
               void* reply) = nullptr;
  void (*close)(int64_t file) = nullptr;
  // Appends the paths that match the pattern to `reply`, with a NUL byte after each. Result: 0.
  void (*glob)(const char* pattern, int64_t* result, void* reply) = nullptr;
  // PyErr_SetInterrupt().
  void (*interrupt)() = nullptr;
};

// Ctrl-C during an op: Python raises KeyboardInterrupt in the first function that runs, which
// cannot pass it on. The function is called again. After the op Python is interrupted again, as it
// would be if the op had not called it. An op that fails discards the interrupt. Requires: the
// first variable of the op, so that the op closes its files before.
class DeferredInterrupt {
 public:
  DeferredInterrupt();
  ~DeferredInterrupt();
  DeferredInterrupt(const DeferredInterrupt&) = delete;
  DeferredInterrupt& operator=(const DeferredInterrupt&) = delete;

 private:
  const int num_exceptions_;
};

// Registers the functions, or unregisters them for good if they are null. Waits a few seconds for
// running calls of the functions before: afterwards none is called any more. Requires: the caller
// does not hold the GIL.
void SetRemoteFunctions(const RemoteFunctions& functions);

// Throws: OpError (UNIMPLEMENTED) if Python has not registered its functions, so that `path` cannot
// be read.
void RequireRemoteFunctions(const std::string& path);

// For Python's functions: appends bytes to their `reply`.
void AppendTo(void* reply, std::string_view bytes);

// Whether a path has a scheme other than "file".
bool IsRemote(std::string_view path);

// Returns the path by which the system knows a local file: without "file://host", and without
// "x/..", which TensorFlow removes even if x does not exist.
// Throws: OpError (NOT_FOUND) if no path follows the host.
std::string LocalPath(const std::string& path);

// Opens a remote file. It may be used only by the thread that opened it. Ignores the mode.
// Throws, and its reads throw: OpError with the code of Python's exception; as
// RequireRemoteFunctions().
std::shared_ptr<const File> OpenRemote(const std::string& path,
                                       ReadMode mode = ReadMode::kBuffered);

// Returns the remote files that match a pattern. Throws: as OpenRemote().
std::vector<std::string> MatchRemote(const std::string& pattern);

// Opens a remote file or, after LocalPath(), a local one. Throws: as OpenRemote() and File::Open().
std::shared_ptr<const File> OpenAnywhere(const std::string& path);

}  // namespace tensorbundle::op
