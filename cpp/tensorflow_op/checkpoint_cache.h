// SPDX-License-Identifier: Apache-2.0
// LRU caches of values computed from files, and the checkpoints that the ops open through them.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/io/file.h"
#include "tensorflow_op/tf_api.h"

namespace tensorbundle::op {

// Identifies a value: its name, and the versions of the files that it was computed from.
struct CacheKey {
  std::string name;
  std::vector<FileIdentity> files;
  bool operator==(const CacheKey&) const = default;
};

// A cache of values by name and file version. If several threads ask for a value, one computes it
// and the others wait. An exception is rethrown in all of them and is not cached.
// Threads: safe.
template <typename Value>
class SharedCache {
 public:
  using Pointer = std::shared_ptr<const Value>;
  struct Computed {
    Pointer value;
    uint64_t size;  // approximate, in bytes
  };

  // Keeps the most recently used values up to a total of `capacity` bytes, and always the most
  // recent one.
  explicit SharedCache(uint64_t capacity) : capacity_(capacity) {}

  // Returns the value of `key`. Calls `compute` if it is not cached, and rethrows its exception.
  Pointer Get(const CacheKey& key, const std::function<Computed()>& compute) {
    std::promise<Pointer> promise;
    std::shared_future<Pointer> future;
    bool is_mine = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const auto found = Find(key);
      if (found == entries_.end()) {
        is_mine = true;
        DropOtherVersions(key.name);
        entries_.push_front({key, promise.get_future().share(), 0});
        future = entries_.front().future;
      } else {
        entries_.splice(entries_.begin(), entries_, found);
        future = found->future;
      }
    }
    if (is_mine) Compute(key, compute, &promise);
    return future.get();
  }

 private:
  struct Entry {
    CacheKey key;
    std::shared_future<Pointer> future;
    uint64_t size;
  };
  using Iterator = typename std::list<Entry>::iterator;

  Iterator Find(const CacheKey& key) {
    Iterator it = entries_.begin();
    while (it != entries_.end() && it->key != key) ++it;
    return it;
  }

  // A file that was rewritten: its earlier versions are not needed any more.
  void DropOtherVersions(const std::string& name) {
    entries_.remove_if([&](const Entry& entry) { return entry.key.name == name; });
  }

  void Compute(const CacheKey& key, const std::function<Computed()>& compute,
               std::promise<Pointer>* promise) {
    try {
      Computed computed = compute();
      promise->set_value(std::move(computed.value));
      const std::lock_guard<std::mutex> lock(mutex_);
      if (const Iterator it = Find(key); it != entries_.end()) it->size = computed.size;
      Evict();
    } catch (...) {
      promise->set_exception(std::current_exception());
      const std::lock_guard<std::mutex> lock(mutex_);
      if (const Iterator it = Find(key); it != entries_.end()) entries_.erase(it);
    }
  }

  void Evict() {
    uint64_t total = 0;
    for (const Entry& entry : entries_) total += entry.size;
    while (entries_.size() > 1 && total > capacity_) {
      total -= entries_.back().size;
      entries_.pop_back();
    }
  }

  const uint64_t capacity_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // most recently used first; guarded by mutex_
};

// A tensor that can be read. The index is parsed once per process and version of its file.
// Lifetime: keeps the tensor's files open. The process caches the index of a V2 checkpoint, but no
// data files. A V1 checkpoint has tensors and index in one file; the two opened most recently stay
// open.
struct OpenTensor {
  std::shared_ptr<const Checkpoint> checkpoint;
  const Tensor* tensor;    // of the checkpoint
  bool is_remote = false;  // only this thread may read it, and it was opened for this op alone

  std::span<const int64_t> shape() const { return checkpoint->catalog().Shape(*tensor); }
};

// Tensors of one checkpoint, opened together. Lifetime: as OpenTensor.
struct OpenedTensors {
  std::shared_ptr<const Checkpoint> checkpoint;
  std::vector<const Tensor*> tensors;
  bool is_remote = false;

  size_t size() const { return tensors.size(); }
  OpenTensor operator[](size_t i) const { return {checkpoint, tensors[i], is_remote}; }
};

// Opens the tensors `names`, each with the type at its position. Each data file is opened once.
// Throws: as Open(); the message lists all tensors of other types.
OpenedTensors OpenAll(const std::string& prefix, std::span<const std::string> names,
                      std::span<const TypeNumber> types, IoMode mode);

// Opens tensor `name`. `prefix` is the prefix of a V2 checkpoint, or, if "<prefix>.index" does not
// exist, a V1 file or the pattern "<name>-?????-of-NNNNN" of its shards.
// Throws: OpError with TensorFlow's message if there is no such checkpoint or tensor, or the tensor
// has another type; CorruptionError if the checkpoint is replaced faster than it can be opened; as
// ReadBundleIndex() and OpenV1().
OpenTensor Open(const std::string& prefix, const std::string& name, TypeNumber type, IoMode mode);

// As OpenAll(), for the kernels of TensorFlow's ops: `prefix` is any path that TensorFlow accepts.
// Remote checkpoints (remote_files.h) are not cached.
// Throws: as OpenAll(); OpError (DATA_LOSS) if a V1 file cannot be opened; as OpenRemote().
OpenedTensors OpenStock(const std::string& prefix, std::span<const std::string> names,
                        std::span<const TypeNumber> types, IoMode mode);

// Formats a type as TensorFlow's messages do: "float", "int32".
std::string TypeText(TypeNumber type);

}  // namespace tensorbundle::op
