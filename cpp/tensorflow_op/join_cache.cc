// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/join_cache.h"

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "tensorbundle/io/file.h"
#include "tensorflow_op/shared_cache.h"
#include "tensorflow_op/threads.h"

namespace tensorbundle::op {
namespace {

// Eight bytes per token: joins of some tens of millions of tokens.
constexpr uint64_t kCapacity = uint64_t{256} << 20;

FileIdentity Identify(const std::string& path) {
  const std::optional<FileIdentity> found = File::Identify(path);
  if (found) return *found;
  throw OpError(Code::kNotFound, path + "; No such file or directory");
}

// Of the whole new vocabulary, so that variables of different sizes share it.
JoinResult MakeJoin(const JoinRequest& request, uint64_t num_bytes) {
  JoinOptions options;
  options.threads = ThreadsFor(0, num_bytes);
  options.old_size = request.old_size;
  try {
    return JoinFiles(File::Open(request.new_vocab), File::Open(request.old_vocab), options);
  } catch (const std::invalid_argument& error) {
    if (request.old_size != 0) throw;
    throw OpError(Code::kOutOfRange, error.what());  // as for a file without a line
  }
}

std::shared_ptr<const JoinResult> JoinOf(const JoinRequest& request) {
  static SharedCache<JoinResult> cache(kCapacity);
  const FileIdentity new_file = Identify(request.new_vocab);
  const FileIdentity old_file = Identify(request.old_vocab);
  const std::string separator(1, '\0');  // in no path
  const std::string name = request.new_vocab + separator + request.old_vocab + separator +
                           std::to_string(request.old_size);
  return cache.Get({name, {new_file, old_file}}, [&]() -> SharedCache<JoinResult>::Made {
    auto joined = std::make_shared<const JoinResult>(MakeJoin(request, new_file.size));
    const uint64_t size = joined->ids().size_bytes();
    return {std::move(joined), size};
  });
}

}  // namespace

JoinRequest JoinRequestOf(const Attributes& attributes) {
  return {attributes.String("new_vocab"), attributes.String("old_vocab"),
          attributes.Int("new_size"), attributes.Int("old_size")};
}

JoinedIds IdsOf(const JoinRequest& request, int64_t offset, int64_t count) {
  std::shared_ptr<const JoinResult> joined = JoinOf(request);
  auto size = static_cast<int64_t>(joined->ids().size());
  if (request.new_size >= 0) size = std::min(size, request.new_size);
  if (offset < 0 || count < 0 || offset > size || count > size - offset) {
    throw OpError(Code::kInvalidArgument,
                  "lookup table size must be larger than last new vocab entry's line: rows " +
                      std::to_string(offset) + " and the " + std::to_string(count) +
                      " from there on are wanted of " + request.new_vocab + ", which has " +
                      std::to_string(size) + " that count");
  }
  const std::span<const int64_t> ids =
      joined->ids().subspan(static_cast<size_t>(offset), static_cast<size_t>(count));
  return {std::move(joined), ids};
}

}  // namespace tensorbundle::op
