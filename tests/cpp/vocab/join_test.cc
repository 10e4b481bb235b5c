// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/join.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/token_table.h"
#include "tensorbundle/vocab/vocabulary.h"
#include "vocab/tokens.h"
#include "vocab/vocabulary_files.h"

namespace tensorbundle {
namespace {

using namespace std::string_literals;

using Ids = std::vector<int64_t>;
using testing::Contains;
using testing::kManyTokens;
using testing::Lines;
using testing::OfTokens;
using testing::Tokens;
using testing::TokensOf;
using testing::VocabularyPtr;

class JoinTest : public testing::VocabularyFiles {
 protected:
  // Returns the result of a join of files with these contents. Checks that both ways to join agree.
  JoinResult Joined(std::string_view new_bytes, std::string_view old_bytes,
                    const JoinOptions& options, bool hold) const {
    const auto new_file = File::Open(Write("new", new_bytes));
    const auto old_file = File::Open(Write("old", old_bytes));
    if (!hold) return tensorbundle::JoinFiles(new_file, old_file, options);
    return Join(*Vocabulary::OfFile(*new_file, 2), *Vocabulary::OfFile(*old_file, 2), options);
  }

  // The ids of both sizes must agree, too.
  Ids JoinFiles(std::string_view new_bytes, std::string_view old_bytes,
                JoinOptions options = {}) const {
    std::vector<Ids> all;
    for (const bool hold : {true, false}) {
      for (options.compact = false;; options.compact = true) {
        const JoinResult result = Joined(new_bytes, old_bytes, options, hold);
        const Ids found = result.Visit([](auto ids) { return Ids(ids.begin(), ids.end()); });
        EXPECT_EQ(result.num_bytes(), found.size() * (options.compact ? 4 : 8));
        EXPECT_EQ(result.num_present,
                  found.size() - static_cast<size_t>(std::count(found.begin(), found.end(), -1)));
        all.push_back(found);
        EXPECT_EQ(all.front(), all.back());
        if (options.compact) break;
      }
    }
    return all.front();
  }

  // Returns the message of the E that the join throws, or "" if it throws no E.
  template <typename E>
  std::string Failure(std::string_view new_bytes, std::string_view old_bytes,
                      const JoinOptions& options = {}) const {
    std::string messages[2];
    for (const bool hold : {true, false}) {
      try {
        Joined(new_bytes, old_bytes, options, hold);
      } catch (const E& error) {
        messages[hold] = error.what();
      }
    }
    EXPECT_EQ(messages[0], messages[1]);
    return messages[0];
  }
};

JoinOptions Wanted(int64_t new_offset, int64_t num_new, int64_t old_size = JoinOptions::kAll) {
  JoinOptions options;
  options.new_offset = new_offset;
  options.num_new = num_new;
  options.old_size = old_size;
  return options;
}

JoinOptions OldSize(int64_t old_size) { return Wanted(0, JoinOptions::kAll, old_size); }

TEST_F(JoinTest, BytesAreNotInterpreted) {
  const Tokens tokens{
      "\xef\xbb\xbf"
      "a",
      " a",
      "\ta",
      "a ",
      "a\0"s,
      "\0"s,
      "\xff\xfe",
      "e\xcc\x81",
      "\xc3\xa9"};
  EXPECT_EQ(TokensOf(*OfFile("file", Lines(tokens))), tokens);
  EXPECT_EQ(JoinFiles(Lines(tokens), Lines({"a", "\0"s})),
            (Ids{-1, -1, -1, -1, -1, 1, -1, -1, -1}));
}

// The '\n' that an unterminated line gets may be the first byte of a block or of a chunk.
TEST_F(JoinTest, UnterminatedLinesAtBlockBorders) {
  for (const size_t border : {64u, 65'536u, 262'144u}) {
    for (size_t size = border - 2; size <= border + 2; ++size) {
      for (const std::string& end : {""s, "\r"s}) {
        const std::string b(size / 2, 'b');
        const std::string c(size - b.size() - 4 - end.size(), 'c');
        const std::string text = "\n" + b + "\na\n" + c + end;
        ASSERT_EQ(text.size(), size);
        const VocabularyPtr vocabulary = OfFile("file", text);
        EXPECT_EQ(TokensOf(*vocabulary), (Tokens{"", b, "a", c})) << size;
        EXPECT_EQ(vocabulary->first_empty_line(), 0u);
        EXPECT_EQ(JoinFiles(Lines({c, "a", b}), text.substr(1)), (Ids{2, 1, 0}));
      }
    }
  }
}

TEST_F(JoinTest, TokensMayContainNewlines) {
  const VocabularyPtr wanted = OfTokens({"a\nb", "a", "b", "a\n", "\nb", "b\r", "\n", ""});
  const JoinResult lines = Join(*wanted, *OfFile("old", "a\nb\r\n"), {});
  EXPECT_EQ(Ids(lines.ids().begin(), lines.ids().end()), (Ids{-1, 0, 1, -1, -1, -1, -1, -1}));
  const JoinResult tokens = Join(*wanted, *OfTokens({"a", "b", "b\r", ""}), {});
  EXPECT_EQ(Ids(tokens.ids().begin(), tokens.ids().end()), (Ids{-1, 0, 1, -1, -1, 2, -1, 3}));
}

TEST_F(JoinTest, ManyTokensInMemory) {
  JoinOptions options;
  options.old_duplicates = Duplicates::kTakeFirst;
  Tokens tokens(kManyTokens);  // empty tokens
  const VocabularyPtr empty = OfTokens(tokens);
  EXPECT_EQ(empty->size(), kManyTokens);
  EXPECT_EQ(Join(*empty, *empty, options).num_present, kManyTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = std::to_string(i);
  options = Wanted(70'000, 70'000);
  options.threads = 3;
  const JoinResult result = Join(*OfTokens(tokens), *OfTokens(tokens), options);
  ASSERT_EQ(result.ids().size(), 70'000u);
  for (size_t i = 0; i < 70'000; ++i) ASSERT_EQ(result.ids()[i], static_cast<int64_t>(70'000 + i));
}

TEST_F(JoinTest, TokensInMemoryAreNotLines) {
  const Tokens tokens{"a\r", "", "b\n", "\n", "c"};
  const VocabularyPtr vocabulary = OfTokens(tokens);
  EXPECT_EQ(TokensOf(*vocabulary), tokens);
  EXPECT_FALSE(vocabulary->is_file());
  EXPECT_FALSE(vocabulary->first_empty_line());
  const JoinResult result = Join(*OfTokens({"c", "", "b"}), *vocabulary, {});
  EXPECT_EQ(Ids(result.ids().begin(), result.ids().end()), (Ids{4, 1, -1}));
}

TEST_F(JoinTest, SequencesMayBeEmpty) {
  EXPECT_EQ(Join(*OfTokens({}), *OfTokens({"a"}), {}).ids().size(), 0u);
  const JoinResult result = Join(*OfTokens({"a", ""}), *OfTokens({}), {});
  EXPECT_EQ(Ids(result.ids().begin(), result.ids().end()), (Ids{-1, -1}));
  EXPECT_EQ(result.num_present, 0u);
}

TEST_F(JoinTest, IdsAreRowsOfTheOldVocabulary) {
  EXPECT_EQ(JoinFiles("a\nb\nc", "c\nb\na"), (Ids{2, 1, 0}));
  EXPECT_EQ(JoinFiles("a\r\nx\r\nc\r\n", "a\nb\nc\n"), (Ids{0, -1, 2}));
  EXPECT_EQ(JoinFiles("a\na\nb\n", "b\na\n"), (Ids{1, 1, 0}));  // twice in the new one is fine
}

TEST_F(JoinTest, PartOfTheNewVocabulary) {
  EXPECT_EQ(JoinFiles("a\nb\nc\n", "c\nb\na\n", Wanted(1, 2)), (Ids{1, 0}));
  EXPECT_EQ(JoinFiles("a\nb\nc\n", "c\nb\na\n", Wanted(1, JoinOptions::kAll)), (Ids{1, 0}));
  EXPECT_EQ(JoinFiles("a\nb\nc\n", "c\nb\na\n", Wanted(3, 0)), Ids{});
  EXPECT_EQ(JoinFiles("a\nb\nc\n", "c\nb\na\n", Wanted(3, JoinOptions::kAll)), Ids{});
  const std::string message =
      Failure<std::invalid_argument>("a\nb\nc\n", "x\nx\n", Wanted(2, 2));  // before the old one
  EXPECT_TRUE(Contains(message, "rows 2 and the 2") && Contains(message, "has 3")) << message;
  EXPECT_TRUE(Contains(message, Path("new"))) << message;
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "a\n", Wanted(2, 0)), "");
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "a\n", Wanted(2, JoinOptions::kAll)), "");
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "a\n", Wanted(INT64_MAX, INT64_MAX)), "");
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "a\n", Wanted(-1, 0)), "");
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "a\n", Wanted(0, -2)), "");
}

TEST_F(JoinTest, PartOfTheOldVocabulary) {
  EXPECT_EQ(JoinFiles("a\nb\nc\n", "a\nb\nc\n", OldSize(2)), (Ids{0, 1, -1}));
  EXPECT_EQ(JoinFiles("a\nb\nc\n", "a\nb\nc\n", OldSize(3)), (Ids{0, 1, 2}));
  const std::string message = Failure<std::invalid_argument>("a\n", "a\nb\nc\n", OldSize(4));
  EXPECT_TRUE(Contains(message, "old_size is 4") && Contains(message, "the 3 rows")) << message;
  EXPECT_TRUE(Contains(message, Path("old"))) << message;
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "a\n", OldSize(0)), "");
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "a\n", OldSize(-2)), "");
}

TEST_F(JoinTest, ErrorKinds) {
  const auto kind_of = [this](std::string_view new_bytes, std::string_view old_bytes) {
    try {
      JoinFiles(new_bytes, old_bytes, {});
    } catch (const VocabularyError& error) {
      return std::optional(error.kind());
    }
    return std::optional<VocabularyError::Kind>();
  };
  EXPECT_EQ(kind_of("a\n", "b\n"), std::nullopt);
  EXPECT_EQ(kind_of("", "a\n"), VocabularyError::Kind::kNoLine);
  EXPECT_EQ(kind_of("a\n", ""), VocabularyError::Kind::kNoLine);
  EXPECT_EQ(kind_of("\n", "a\n"), VocabularyError::Kind::kEmptyLine);
  EXPECT_EQ(kind_of("a\n", "a\n\n"), VocabularyError::Kind::kEmptyLine);
  EXPECT_EQ(kind_of("a\n", "a\na\n"), VocabularyError::Kind::kDuplicate);
}

TEST_F(JoinTest, FilesWithoutLines) {
  for (const std::string& nothing : {""s, "\r"s}) {
    EXPECT_TRUE(Contains(Failure<CorruptionError>(nothing, "a\n", Wanted(0, 0)), Path("new")));
    EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", nothing), Path("old")));
  }
  EXPECT_NE(Failure<std::invalid_argument>("a\n", "", OldSize(2)), "");
}

TEST_F(JoinTest, EmptyLines) {
  const std::string message = Failure<CorruptionError>("ab\n\nb\n", "a\n", Wanted(0, 1));
  EXPECT_TRUE(Contains(message, "line 2 of " + Path("new"))) << message;
  EXPECT_TRUE(Contains(message, "offset 4")) << message;
  EXPECT_TRUE(Contains(Failure<CorruptionError>("\n", "a\n"), "line 1 of"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("\r\n", "a\n"), "line 1 of"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n\r\nb\n", "a\n"), "line 2 of"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\nb\n\n", "a\n", Wanted(9, 9)), "line 3 of"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "a\n\nb\n"), "line 2 of " + Path("old")));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "a\n\nb\n", OldSize(2)),
                       "line 2 of " + Path("old")));
  EXPECT_EQ(JoinFiles("a\n", "a\n\nb\n", OldSize(1)), (Ids{0}));  // not looked at
}

TEST_F(JoinTest, DuplicatesInTheOldVocabulary) {
  const std::string message = Failure<CorruptionError>("a\n", "b\na\nx\na\nb\n");
  EXPECT_TRUE(
      Contains(message, "line 4 of " + Path("old") + " repeats 'a' of line 2 of " + Path("old")))
      << message;
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "a\r\na\n"), "line 2"));
  EXPECT_EQ(JoinFiles("b\na\n", "b\na\nx\na\nb\n", OldSize(3)), (Ids{0, 1}));
  JoinOptions lenient;
  lenient.old_duplicates = Duplicates::kTakeFirst;
  EXPECT_EQ(JoinFiles("b\na\nx\n", "b\na\nx\na\nb\na\n", lenient), (Ids{0, 1, 2}));
  EXPECT_THROW(Join(*OfTokens({}), *OfTokens({"", ""}), {}), CorruptionError);
}

TEST_F(JoinTest, ReportsTheFirstErrorOfTheOldVocabulary) {
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "a\na\n\n"), "repeats"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "a\n\na\n"), "is empty"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "a\na\n", OldSize(5)), "repeats"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "a\n\n", OldSize(5)), "is empty"));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("a\n", "", OldSize(0)), Path("old")));
  EXPECT_TRUE(Contains(Failure<CorruptionError>("", "a\n", OldSize(0)), Path("new")));
}

TEST_F(JoinTest, LongTokensAreCutInMessages) {
  const std::string token(5000, 'x');
  const std::string message = Failure<CorruptionError>("a\n", Lines({token, token}));
  EXPECT_TRUE(Contains(message, "...")) << message;
  EXPECT_LT(message.size(), 500u);
}

// The expected result of a join, computed with a dictionary.
struct Oracle {
  Oracle(const Tokens& new_tokens, const Tokens& old_tokens, const JoinOptions& options) {
    const size_t old_size =
        options.old_size < 0 ? old_tokens.size() : static_cast<size_t>(options.old_size);
    for (size_t row = 0; row < old_size; ++row) {
      const bool added = rows.emplace(old_tokens[row], static_cast<int64_t>(row)).second;
      if (!added && !duplicate) duplicate = row;
    }
    const auto begin = static_cast<size_t>(options.new_offset);
    const size_t count =
        options.num_new < 0 ? new_tokens.size() - begin : static_cast<size_t>(options.num_new);
    for (size_t row = begin; row < begin + count; ++row) {
      const auto found = rows.find(new_tokens[row]);
      ids.push_back(found == rows.end() ? -1 : found->second);
    }
  }

  std::unordered_map<std::string, int64_t> rows;
  std::optional<size_t> duplicate;
  Ids ids;
};

// Words of few letters make duplicates, within a vocabulary and between two.
Tokens RandomTokens(std::mt19937_64& random, size_t count, int letters, size_t max_size) {
  Tokens tokens(count);
  for (std::string& token : tokens) {
    token.resize(1 + random() % max_size);
    for (char& c : token) c = static_cast<char>('a' + random() % letters);
  }
  return tokens;
}

TEST_F(JoinTest, RandomVocabulariesWithManyDuplicates) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    const int letters = 1 + static_cast<int>(random() % 4);
    const size_t max_size = 1 + random() % 24;
    const Tokens new_tokens = RandomTokens(random, 1 + random() % 300, letters, max_size);
    const Tokens old_tokens = RandomTokens(random, 1 + random() % 300, letters, max_size);
    JoinOptions options;
    options.threads = 1 + static_cast<int>(random() % 8);
    options.new_offset = static_cast<int64_t>(random() % (new_tokens.size() + 1));
    options.num_new = static_cast<int64_t>(random() % (new_tokens.size() - options.new_offset + 1));
    options.old_size = static_cast<int64_t>(1 + random() % old_tokens.size());
    const Oracle oracle(new_tokens, old_tokens, options);
    const std::string error =
        Failure<CorruptionError>(Lines(new_tokens), Lines(old_tokens), options);
    const std::string line = "line " + std::to_string(oracle.duplicate.value_or(0) + 1) + " of";
    EXPECT_EQ(Contains(error, line), oracle.duplicate.has_value()) << error;
    options.old_duplicates = Duplicates::kTakeFirst;
    EXPECT_EQ(JoinFiles(Lines(new_tokens, "\r\n"), Lines(old_tokens), options), oracle.ids);
  }
}

TEST_F(JoinTest, ThreadsDoNotChangeTheResult) {
  std::mt19937_64 random(2);
  const Tokens new_tokens = RandomTokens(random, kManyTokens, 3, 14);
  const Tokens old_tokens = RandomTokens(random, kManyTokens, 3, 14);
  JoinOptions options;
  options.old_duplicates = Duplicates::kTakeFirst;
  const Oracle oracle(new_tokens, old_tokens, options);
  for (options.threads = 1; options.threads <= 8; ++options.threads) {
    const VocabularyPtr new_vocabulary = OfFile("new", Lines(new_tokens), options.threads);
    const VocabularyPtr old_vocabulary = OfFile("old", Lines(old_tokens), options.threads);
    const JoinResult result = Join(*new_vocabulary, *old_vocabulary, options);
    EXPECT_TRUE(
        std::equal(result.ids().begin(), result.ids().end(), oracle.ids.begin(), oracle.ids.end()));
    const TokenTable table(*old_vocabulary, old_vocabulary->size(), 0, options.threads);
    EXPECT_EQ(table.first_duplicate(), oracle.duplicate);
  }
}

}  // namespace
}  // namespace tensorbundle
