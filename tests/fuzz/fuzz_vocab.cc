// SPDX-License-Identifier: Apache-2.0
// The bytes are two vocabularies and the options of a join, whose result is compared with that of a
// dictionary.
//
// Layout of an input: seven bytes of options, the new vocabulary, the byte 0xff, the old one. Lines
// of padding can be put before either, so that short inputs reach sizes near the limits in the
// code: multiples of 64 bytes (a block) and, for one length of inputs in 16, of 64 KiB (a chunk).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuzz_input.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/join.h"
#include "tensorbundle/vocab/line_stream.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle::fuzz {
namespace {

constexpr size_t kNumOptions = 7;
constexpr char kSeparator = '\xff';
constexpr uint8_t kManyThreads = 't';

struct Example {
  std::string new_text;
  std::string old_text;
  JoinOptions options;
};

// Returns distinct lines followed by `text`, with a total size of a multiple of `unit` plus
// `delta`.
std::string Padded(const std::string& text, size_t unit, int delta) {
  if (unit == 0) return text;
  const size_t wanted = (text.size() / unit + 1) * unit + static_cast<size_t>(delta);
  std::string filler;
  const size_t longest = unit / 16;  // a chunk of short lines would take most of the time
  for (char c = 'A'; filler.size() + text.size() + 1 < wanted; c = c == 'Z' ? 'A' : c + 1) {
    const size_t length = std::min(longest, wanted - filler.size() - text.size() - 1);
    filler += std::to_string(filler.size()).append(length, c).substr(0, length) + "\n";
  }
  return filler + text;
}

// Small numbers are tried most: -2, -1, 0, 1, ...
int64_t NumberOf(uint8_t byte) { return static_cast<int64_t>(byte % 64) - 2; }

std::optional<Example> MakeExample(std::string_view input) {
  if (input.size() < kNumOptions) return std::nullopt;
  const auto option = [&](size_t i) { return static_cast<uint8_t>(input[i]); };
  const std::string_view texts = input.substr(kNumOptions);
  const size_t middle = std::min(texts.find(kSeparator), texts.size());
  Example example;
  example.new_text = texts.substr(0, middle);
  if (middle < texts.size()) example.old_text = texts.substr(middle + 1);
  constexpr int kPadToBlock = 25;  // and above
  constexpr int kPadToChunk = 37;
  // Large files take most of the time, and mutations keep their options: so they are rare.
  const bool may_be_large = input.size() % 16 == 0;
  const auto pad = [&](std::string* text, uint8_t how) {
    const size_t unit = how / 5 == kPadToChunk && may_be_large ? LineIndex::kChunkSize
                        : how / 5 >= kPadToBlock               ? LineIndex::kBlockSize
                                                               : 0;
    *text = Padded(*text, unit, how % 5 - 2);
  };
  pad(&example.new_text, option(0));
  pad(&example.old_text, option(1));
  if (option(2) % 2 == 1) example.options.new_offset = NumberOf(option(3));
  if (option(2) / 2 % 2 == 1) example.options.num_new = NumberOf(option(4));
  if (option(2) / 4 % 2 == 1) example.options.old_size = NumberOf(option(5));
  if (option(2) / 8 % 2 == 1) example.options.old_duplicates = Duplicates::kTakeFirst;
  example.options.threads = option(6) == kManyThreads ? 3 : 1;
  return example;
}

// The result of a join, or its error.
struct Outcome {
  enum class Kind { kIds, kNoLine, kEmptyLine, kDuplicate, kArgument };
  Kind kind = Kind::kIds;
  std::vector<int64_t> ids{};
  bool operator==(const Outcome&) const = default;
};

// The tokens of a file, empty ones where a line has none.
std::vector<std::string> TokensOf(std::string_view text) {
  std::vector<std::string> tokens;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (end == std::string_view::npos && line == "\r") break;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    tokens.emplace_back(line);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return tokens;
}

// The rules of TensorFlow's GenerateVocabRemapping, without the index and the hash table under
// test.
Outcome Expected(const Example& example) {
  using Kind = Outcome::Kind;
  const JoinOptions& options = example.options;
  const auto all = JoinOptions::kAll;
  if (options.new_offset < 0 || options.num_new < all || options.old_size < all) {
    return {Kind::kArgument};
  }
  const std::vector<std::string> tokens = TokensOf(example.new_text);
  if (tokens.empty()) return {Kind::kNoLine};
  if (std::ranges::count(tokens, "") > 0) return {Kind::kEmptyLine};
  const auto offset = static_cast<size_t>(options.new_offset);
  if (offset > tokens.size()) return {Kind::kArgument};
  const size_t count =
      options.num_new == all ? tokens.size() - offset : static_cast<size_t>(options.num_new);
  if (count > tokens.size() - offset) return {Kind::kArgument};

  const std::vector<std::string> old_tokens = TokensOf(example.old_text);
  if (old_tokens.empty() && options.old_size <= 0) return {Kind::kNoLine};
  if (options.old_size == 0) return {Kind::kArgument};
  const size_t wanted =
      options.old_size == all ? old_tokens.size() : static_cast<size_t>(options.old_size);
  std::unordered_map<std::string, int64_t> rows;
  for (size_t row = 0; row < std::min(wanted, old_tokens.size()); ++row) {
    if (old_tokens[row].empty()) return {Kind::kEmptyLine};
    const bool is_new = rows.try_emplace(old_tokens[row], static_cast<int64_t>(row)).second;
    if (!is_new && options.old_duplicates == Duplicates::kRefuse) return {Kind::kDuplicate};
  }
  if (wanted > old_tokens.size()) return {Kind::kArgument};
  Outcome outcome;
  for (size_t i = offset; i < offset + count; ++i) {
    const auto found = rows.find(tokens[i]);
    outcome.ids.push_back(found == rows.end() ? -1 : found->second);
  }
  return outcome;
}

template <typename Make>
Outcome Run(const Make& make) {
  using Kind = Outcome::Kind;
  try {
    const JoinResult result = make();
    Outcome outcome{Kind::kIds, {result.ids().begin(), result.ids().end()}};
    const auto missing = std::ranges::count(outcome.ids, int64_t{-1});
    Require(result.num_present == outcome.ids.size() - static_cast<size_t>(missing));
    return outcome;
  } catch (const VocabularyError& error) {
    switch (error.kind()) {
      case VocabularyError::Kind::kNoLine:
        return {Kind::kNoLine};
      case VocabularyError::Kind::kEmptyLine:
        return {Kind::kEmptyLine};
      case VocabularyError::Kind::kDuplicate:
        return {Kind::kDuplicate};
    }
    std::abort();
  } catch (const std::invalid_argument&) {
    return {Kind::kArgument};
  }
}

std::shared_ptr<const Vocabulary> InMemory(const std::vector<std::string>& tokens) {
  std::string bytes;
  std::vector<uint64_t> offsets{0};
  for (const std::string& token : tokens) {
    bytes += token;
    offsets.push_back(bytes.size());
  }
  return Vocabulary::OfTokens("tokens", AsBytes(bytes), offsets);
}

// Looks rows up by number, as messages and look-ups do.
void CheckRows(const Vocabulary& vocabulary, const std::vector<std::string>& tokens) {
  Require(vocabulary.size() == tokens.size());
  const size_t step = tokens.size() / 64 + 1;  // all of a short one
  for (size_t row = 0; row < tokens.size(); row += step) {
    Require(vocabulary.token(row) == tokens[row]);
  }
  if (!tokens.empty()) Require(vocabulary.token(tokens.size() - 1) == tokens.back());
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  using namespace tensorbundle::fuzz;
  static const ScratchFile new_scratch("new");
  static const ScratchFile old_scratch("old");
  const std::optional<Example> made = MakeExample({reinterpret_cast<const char*>(data), size});
  if (!made) return 0;
  const auto new_file = new_scratch.Open(made->new_text);
  const auto old_file = old_scratch.Open(made->old_text);
  const JoinOptions& options = made->options;
  const Outcome expected = Expected(*made);

  Require(Run([&] { return JoinFiles(new_file, old_file, options); }) == expected);
  const auto new_vocabulary = Vocabulary::OfFile(*new_file, options.threads);
  const auto old_vocabulary = Vocabulary::OfFile(*old_file, options.threads);
  Require(Run([&] { return Join(*new_vocabulary, *old_vocabulary, options); }) == expected);
  CheckRows(*new_vocabulary, TokensOf(made->new_text));
  CheckRows(*old_vocabulary, TokensOf(made->old_text));

  if (expected.kind != Outcome::Kind::kIds) return 0;
  const auto new_tokens = InMemory(TokensOf(made->new_text));
  const auto old_tokens = InMemory(TokensOf(made->old_text));
  Require(Run([&] { return Join(*new_tokens, *old_tokens, options); }) == expected);
  CheckRows(*new_tokens, TokensOf(made->new_text));
  return 0;
}
