// SPDX-License-Identifier: Apache-2.0
// Values that many ops need and that are costly to make: each is made once, kept while it is worth
// its memory, and made anew when the files behind it change.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "tensorbundle/io/file.h"
#include "tensorflow_op/tf_api.h"

namespace tensorbundle::op {

// What a value was made from, and its name.
struct CacheKey {
  std::string name;
  std::vector<FileIdentity> files;
  bool operator==(const CacheKey&) const = default;
};

// Thread-safe. Who asks for a value that is being made waits for it. Failures are passed on to all
// that wait, and are not kept.
template <typename Value>
class SharedCache {
 public:
  using Pointer = std::shared_ptr<const Value>;
  struct Made {
    Pointer value;
    uint64_t size;  // in bytes, about
  };

  // Keeps the values used last while they have `capacity` bytes together, and the very last one in
  // any case.
  explicit SharedCache(uint64_t capacity) : capacity_(capacity) {}

  // The value of that key, made by `make` if there is none.
  Pointer Get(const CacheKey& key, const std::function<Made()>& make) {
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
    if (is_mine) Make(key, make, &promise);
    return future.get();
  }

 private:
  struct Entry {
    CacheKey key;
    std::shared_future<Pointer> future;
    uint64_t size;
  };
  using Place = typename std::list<Entry>::iterator;

  Place Find(const CacheKey& key) {
    Place place = entries_.begin();
    while (place != entries_.end() && place->key != key) ++place;
    return place;
  }

  // A rewritten file: nobody will ask for what it was before.
  void DropOtherVersions(const std::string& name) {
    entries_.remove_if([&](const Entry& entry) { return entry.key.name == name; });
  }

  void Make(const CacheKey& key, const std::function<Made()>& make,
            std::promise<Pointer>* promise) {
    try {
      Made made = make();
      promise->set_value(std::move(made.value));
      const std::lock_guard<std::mutex> lock(mutex_);
      if (const Place place = Find(key); place != entries_.end()) place->size = made.size;
      Shrink();
    } catch (...) {
      promise->set_exception(std::current_exception());
      const std::lock_guard<std::mutex> lock(mutex_);
      if (const Place place = Find(key); place != entries_.end()) entries_.erase(place);
    }
  }

  void Shrink() {
    uint64_t total = 0;
    for (const Entry& entry : entries_) total += entry.size;
    while (entries_.size() > 1 && total > capacity_) {
      total -= entries_.back().size;
      entries_.pop_back();
    }
  }

  const uint64_t capacity_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // used last first; guarded by mutex_
};

// From a prefix and a name to a tensor that can be read, the index being parsed once per process
// and version of the file.

// Keeps the tensor's files open while it lives, and nothing longer: of a V2 checkpoint the process
// remembers the index, never a data file. (V1 keeps tensors and index in one file: the one or two
// opened last stay open.)
struct OpenTensor {
  std::shared_ptr<const Checkpoint> checkpoint;
  const Tensor* tensor;  // of the checkpoint

  std::span<const int64_t> shape() const { return checkpoint->catalog().Shape(*tensor); }
};

// `prefix` is that of a V2 checkpoint, or, where there is no "<prefix>.index", a V1 file or the
// pattern "<name>-?????-of-NNNNN" of its shards. Throws OpError, in TensorFlow's words, when there
// is no such checkpoint or tensor, or it is not of that type; CorruptionError when it is replaced
// again and again; as ReadBundleIndex and OpenV1.
OpenTensor Open(const std::string& prefix, const std::string& name, TypeNumber type, IoMode mode);

// "float", "int32", as TensorFlow's messages spell types.
std::string TypeText(TypeNumber type);

}  // namespace tensorbundle::op
