// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/join_cache.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <optional>
#include <stdexcept>

#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/file.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/remote_files.h"

namespace tensorbundle::op {
namespace {

// At four bytes per token, joins of some tens of millions of tokens.
constexpr uint64_t kCapacity = uint64_t{256} << 20;

// The ids that a thread copies or counts at a time.
constexpr size_t kIdsPerTask = size_t{1} << 17;

FileIdentity Identify(const std::string& path) {
  const std::optional<FileIdentity> found = File::Identify(LocalPath(path));
  if (found) return *found;
  throw OpError(Code::kNotFound, "the vocabulary file " + path + " does not exist: " + path +
                                     "; No such file or directory");
}

// Reads a vocabulary into memory; a remote one by this thread alone.
std::shared_ptr<const Vocabulary> ReadVocabulary(const std::string& path) {
  const std::shared_ptr<const File> file = OpenAnywhere(path);
  return Vocabulary::OfFile(*file, IsRemote(path) ? 1 : ThreadsFor(0, file->size()));
}

// Joins the whole new vocabulary, so that variables of different sizes share the join.
Joined ComputeJoin(const JoinRequest& request, uint64_t num_bytes) {
  JoinOptions options;
  options.threads = ThreadsFor(0, num_bytes);
  options.old_size = request.old_size;
  options.compact = true;  // four bytes per token instead of eight, for as long as they are cached
  try {
    const std::shared_ptr<const Vocabulary> old_vocabulary = ReadVocabulary(request.old_vocab);
    const auto old_lines = static_cast<int64_t>(old_vocabulary->size());
    const int64_t num_used =
        request.old_size < 0 ? old_lines : std::min(request.old_size, old_lines);
    if (IsRemote(request.new_vocab)) {
      return {Join(*ReadVocabulary(request.new_vocab), *old_vocabulary, options), num_used};
    }
    const LineStream new_lines(OpenAnywhere(request.new_vocab), options.threads);
    return {Join(new_lines, *old_vocabulary, options), num_used};
  } catch (const std::invalid_argument& error) {
    if (request.old_size != 0) throw;
    throw OpError(Code::kOutOfRange, error.what());  // as for an empty file
  }
}

std::shared_ptr<const Joined> JoinOf(const JoinRequest& request) {
  static SharedCache<Joined> cache(kCapacity);
  if (IsRemote(request.new_vocab) || IsRemote(request.old_vocab)) {
    return std::make_shared<const Joined>(ComputeJoin(request, UINT64_MAX));
  }
  const FileIdentity new_file = Identify(request.new_vocab);
  const FileIdentity old_file = Identify(request.old_vocab);
  const std::string separator(1, '\0');  // a byte that no path contains
  const std::string name = request.new_vocab + separator + request.old_vocab + separator +
                           std::to_string(request.old_size);
  return cache.Get({name, {new_file, old_file}}, [&]() -> SharedCache<Joined>::Computed {
    auto joined = std::make_shared<const Joined>(ComputeJoin(request, new_file.size));
    const uint64_t size = joined->result.num_bytes();
    return {std::move(joined), size};
  });
}

}  // namespace

JoinRequest JoinRequestOf(const Attributes& attributes) {
  return {attributes.Path("new_vocab"), attributes.Path("old_vocab"), attributes.Int("new_size"),
          attributes.Int("old_size")};
}

JoinedIds IdsOf(const JoinRequest& request, int64_t offset, int64_t count) {
  std::shared_ptr<const Joined> joined = JoinOf(request);
  auto size = static_cast<int64_t>(joined->result.size());
  if (request.new_size >= 0) size = std::min(size, request.new_size);
  if (offset < 0 || count < 0 || offset > size || count > size - offset) {
    throw OpError(Code::kInvalidArgument,
                  "lookup table size must be larger than last new vocab entry's line: " +
                      std::to_string(count) + " rows from row " + std::to_string(offset) +
                      " on are requested of " + request.new_vocab + ", of which " +
                      std::to_string(size) + " are used");
  }
  return {std::move(joined), offset, count};
}

namespace {

// Returns the sum of work(first, count) over all tasks.
template <typename Work>
int64_t SumOfTasks(size_t size, const Work& work) {
  std::atomic<int64_t> sum{0};
  ParallelFor((size + kIdsPerTask - 1) / kIdsPerTask, ThreadsFor(0, size * sizeof(int64_t)),
              [&](size_t task) {
                const size_t first = task * kIdsPerTask;
                sum += work(first, std::min(kIdsPerTask, size - first));
              });
  return sum;
}

int64_t CountPresentIn(auto ids) {
  return std::count_if(ids.begin(), ids.end(), [](auto id) { return id >= 0; });
}

}  // namespace

int64_t JoinedIds::CopyTo(std::span<int64_t> out) const {
  return joined_->result.Visit([&](auto ids) {
    return SumOfTasks(size_, [&](size_t first, size_t count) {
      const auto part = ids.subspan(offset_ + first, count);
      std::copy(part.begin(), part.end(), out.begin() + static_cast<std::ptrdiff_t>(first));
      return CountPresentIn(part);
    });
  });
}

int64_t JoinedIds::CountPresent() const {
  return joined_->result.Visit([&](auto ids) {
    return SumOfTasks(size_, [&](size_t first, size_t count) {
      return CountPresentIn(ids.subspan(offset_ + first, count));
    });
  });
}

JoinSummary Summarize(const JoinRequest& request, int64_t count, int64_t table_rows) {
  const std::shared_ptr<const Joined> joined = JoinOf(request);
  JoinSummary summary{static_cast<int64_t>(joined->result.size()), joined->old_lines, 0, -1, -1};
  joined->result.Visit([&](auto ids) {
    for (int64_t i = 0; i < std::min(count, summary.new_lines); ++i) {
      const int64_t row = ids[static_cast<size_t>(i)];
      summary.present += row >= 0;
      if (row < table_rows || summary.beyond >= 0) continue;
      summary.beyond = i;
      summary.row = row;
    }
  });
  return summary;
}

}  // namespace tensorbundle::op
