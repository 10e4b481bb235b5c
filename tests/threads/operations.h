// SPDX-License-Identifier: Apache-2.0
// The operations that the threads of the driver run in random order, and what they share.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fake_tensorflow.h"
#include "sample_files.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/prefetch.h"
#include "tensorbundle/read/row_layout.h"
#include "tensorbundle/vocab/line_stream.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle::threads {

// An open checkpoint that all threads share, and that any of them may close.
// Threads: safe.
class SharedHandle {
 public:
  using Pointer = std::shared_ptr<const Checkpoint>;
  using Opener = Pointer (*)(const std::string& path, IoMode mode);

  SharedHandle(std::string path, IoMode mode, Opener open, const std::vector<Table>* tables)
      : path_(std::move(path)), mode_(mode), open_(open), tables_(tables) {}

  const std::vector<Table>& tables() const { return *tables_; }

  Pointer Get() {
    const std::lock_guard lock(mutex_);
    if (handle_ == nullptr) handle_ = open_(path_, mode_);
    return handle_;
  }
  void Close() {
    Pointer closed;  // destroyed after the lock is released
    const std::lock_guard lock(mutex_);
    closed.swap(handle_);
  }

 private:
  const std::string path_;
  const IoMode mode_;
  const Opener open_;
  const std::vector<Table>* const tables_;
  std::mutex mutex_;
  Pointer handle_;
};

inline const Tensor& TensorOf(const Checkpoint& checkpoint, const std::string& name) {
  const size_t index = checkpoint.catalog().Find(name);
  Require(index != Catalog::kNotFound, name + " is not in the checkpoint");
  return checkpoint.catalog().tensors[index];
}

// Rows that a stream has delivered, and that may outlive it.
struct KeptRows {
  std::unique_ptr<PooledBuffer> buffer;
  const Table* table;
  Box box;
};

// What the threads share.
struct Shared {
  const SampleFiles files{};
  std::vector<std::unique_ptr<SharedHandle>> handles{};  // the first is of V2, and local
  std::vector<std::unique_ptr<SharedHandle>> failing{};  // of a server that fails requests
  std::shared_ptr<const Vocabulary> old_vocab{};
  std::shared_ptr<const Vocabulary> new_vocab{};
  std::unique_ptr<const LineStream> new_lines{};
  std::unique_ptr<const fake::Kernel> restore{};  // one instance for all threads, as in a graph
  std::mutex kept_mutex{};
  std::vector<KeptRows> kept{};  // guarded by kept_mutex
  std::mutex change_mutex{};     // of the changing checkpoint
  int version = 0;               // guarded by change_mutex
};

// One thread of the driver.
struct Worker {
  Shared* shared;
  int number;
  Random random;
  int written = 0;  // checkpoints that it has written

  int64_t Below(int64_t limit) { return threads::Below(&random, limit); }
  bool Flip() { return Below(2) == 0; }
  int Threads() { return 1 + static_cast<int>(Below(3)); }
  SharedHandle& Handle() {
    const auto count = static_cast<int64_t>(shared->handles.size());
    return *shared->handles[static_cast<size_t>(Below(count))];
  }
  const Table& TableOf(const std::vector<Table>& tables) {
    return tables[static_cast<size_t>(Below(static_cast<int64_t>(tables.size())))];
  }
  // A prefix for a checkpoint of this thread alone.
  std::string NewPrefix() {
    return shared->files / ("new" + std::to_string(number) + "-" + std::to_string(written++));
  }
};

struct Operation {
  const char* name;
  void (*run)(Worker*);
};

const std::vector<Operation>& ReadOperations();     // of the core
const std::vector<Operation>& WriteOperations();    // of the core
const std::vector<Operation>& KernelOperations();   // of the op library
const std::vector<Operation>& RequestOperations();  // of the core, on a server that fails requests

// Open checkpoints whose files are read by requests, some of which are slow.
SharedHandle::Pointer OpenByRequests(const std::string& path, IoMode mode);
SharedHandle::Pointer OpenV1ByRequests(const std::string& path, IoMode mode);

// As above. Some requests also fail: with IOFailure.
SharedHandle::Pointer OpenFailing(const std::string& path, IoMode mode);
SharedHandle::Pointer OpenV1Failing(const std::string& path, IoMode mode);

// Registers the kernels with the stand-in for TensorFlow, and the functions for remote files.
// Requires: called once, before any kernel operation.
void RegisterKernels(Shared* shared);

}  // namespace tensorbundle::threads
