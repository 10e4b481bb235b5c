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

#include "tensorbundle/io/file.h"

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

}  // namespace tensorbundle::op
