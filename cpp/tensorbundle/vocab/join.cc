// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/join.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/vocab/token_table.h"

namespace tensorbundle {
namespace {

// Messages show at most this many bytes of a token.
constexpr size_t kMaxShownSize = 100;

struct Range {
  uint64_t first;
  uint64_t count;
};

void CheckArgument(const char* name, int64_t value, int64_t least) {
  if (value >= least) return;
  throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                              ", expected at least " + std::to_string(least));
}

void CheckNotEmpty(const auto& vocabulary) {
  if (!vocabulary.is_file() || vocabulary.size() > 0) return;
  throw VocabularyError(VocabularyError::Kind::kNoLine,
                        "the vocabulary file " + vocabulary.name() + " has " +
                            std::to_string(vocabulary.identity()->size) +
                            " bytes and no line; expected one token per line");
}

[[noreturn]] void ThrowEmptyLine(const auto& vocabulary) {
  throw VocabularyError(VocabularyError::Kind::kEmptyLine,
                        vocabulary.Describe(*vocabulary.first_empty_line()) +
                            " is empty, expected a token: it ends at offset " +
                            std::to_string(vocabulary.end_of_first_empty_line()));
}

[[noreturn]] void ThrowDuplicate(const Vocabulary& vocabulary, uint64_t first, uint64_t second) {
  const std::string_view token = vocabulary.token(second);
  throw VocabularyError(VocabularyError::Kind::kDuplicate,
                        vocabulary.Describe(second) + " repeats " +
                            EscapeBytes(token.substr(0, kMaxShownSize)) +
                            (token.size() > kMaxShownSize ? "..." : "") + " of " +
                            vocabulary.Describe(first) + "; expected different tokens");
}

Range RequestedRows(const auto& vocabulary, const JoinOptions& options) {
  const auto offset = static_cast<uint64_t>(options.new_offset);
  const bool inside = offset <= vocabulary.size();
  if (options.num_new == JoinOptions::kAll && inside) return {offset, vocabulary.size() - offset};
  const auto count = static_cast<uint64_t>(std::max<int64_t>(0, options.num_new));
  if (inside && count <= vocabulary.size() - offset) return {offset, count};
  throw std::invalid_argument(
      "rows " + std::to_string(offset) + " and the " + std::to_string(count) +
      " from there on are not all in the new vocabulary " + vocabulary.name() + ", which has " +
      std::to_string(vocabulary.size()));
}

[[noreturn]] void ThrowOldSize(const Vocabulary& vocabulary, int64_t old_size) {
  throw std::invalid_argument("old_size is " + std::to_string(old_size) +
                              ", expected at least 1 and at most the " +
                              std::to_string(vocabulary.size()) + " rows of " + vocabulary.name());
}

// Builds the table of the first `old_size` rows of the old vocabulary. Checks its lines first and
// its size last: with several errors, this reports the one that TensorFlow would report.
TokenTable OldTable(const Vocabulary& vocabulary, uint64_t num_lookups,
                    const JoinOptions& options) {
  const bool all = options.old_size == JoinOptions::kAll;
  const auto old_size = all ? vocabulary.size() : static_cast<uint64_t>(options.old_size);
  if (all || old_size == 0) CheckNotEmpty(vocabulary);
  if (!all && old_size == 0) ThrowOldSize(vocabulary, options.old_size);

  const uint64_t num_rows = std::min(old_size, vocabulary.size());
  const std::optional<uint64_t> empty_line = vocabulary.first_empty_line();
  const bool has_empty = empty_line && *empty_line < num_rows;
  TokenTable table(vocabulary, has_empty ? *empty_line : num_rows, num_lookups, options.threads);
  const std::optional<uint64_t> duplicate = table.first_duplicate();
  if (duplicate && options.old_duplicates == Duplicates::kRefuse) {
    const int64_t first = table.Find(vocabulary.token(*duplicate));
    ThrowDuplicate(vocabulary, static_cast<uint64_t>(first), *duplicate);
  }
  if (has_empty) ThrowEmptyLine(vocabulary);
  if (old_size > num_rows) ThrowOldSize(vocabulary, options.old_size);
  return table;
}

// Returns the requested rows of the new vocabulary. Throws if the vocabulary or the options are
// invalid.
Range CheckedRows(const auto& new_vocabulary, const JoinOptions& options) {
  CheckArgument("new_offset", options.new_offset, 0);
  CheckArgument("num_new", options.num_new, JoinOptions::kAll);
  CheckArgument("old_size", options.old_size, JoinOptions::kAll);
  CheckNotEmpty(new_vocabulary);
  if (new_vocabulary.first_empty_line()) ThrowEmptyLine(new_vocabulary);
  return RequestedRows(new_vocabulary, options);
}

JoinResult JoinRows(const auto& new_vocabulary, const Vocabulary& old_vocabulary,
                    const JoinOptions& options) {
  const Range rows = CheckedRows(new_vocabulary, options);
  const TokenTable table = OldTable(old_vocabulary, rows.count, options);

  const bool is_compact =
      options.compact && old_vocabulary.size() <= std::numeric_limits<int32_t>::max();
  JoinResult result(rows.count, is_compact);
  std::atomic<uint64_t> num_present{0};
  new_vocabulary.ForEachBatch(rows.first, rows.count, options.threads,
                              [&](uint64_t row, std::span<const std::string_view> tokens) {
                                result.Visit([&](auto ids) {
                                  num_present += table.FindAll(
                                      tokens, ids.subspan(row - rows.first, tokens.size()));
                                });
                              });
  result.num_present = num_present;
  return result;
}

}  // namespace

JoinResult Join(const Vocabulary& new_vocabulary, const Vocabulary& old_vocabulary,
                const JoinOptions& options) {
  return JoinRows(new_vocabulary, old_vocabulary, options);
}

JoinResult Join(const LineStream& new_lines, const Vocabulary& old_vocabulary,
                const JoinOptions& options) {
  return JoinRows(new_lines, old_vocabulary, options);
}

JoinResult JoinFiles(std::shared_ptr<const File> new_file, std::shared_ptr<const File> old_file,
                     const JoinOptions& options) {
  const LineStream new_lines(std::move(new_file), options.threads);
  CheckedRows(new_lines, options);
  return Join(new_lines, *Vocabulary::OfFile(*old_file, options.threads), options);
}

}  // namespace tensorbundle
