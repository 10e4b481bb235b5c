// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/line_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/join.h"
#include "tensorbundle/vocab/line_scan.h"
#include "tensorbundle/vocab/vocabulary.h"
#include "vocab/tokens.h"
#include "vocab/vocabulary_files.h"

namespace tensorbundle {
namespace {

using testing::Contains;
using testing::OfTokens;
using testing::Tokens;
using testing::VocabularyPtr;

class LineStreamTest : public testing::VocabularyFiles {
 protected:
  LineStream Lines(std::string_view bytes, int threads = 2,
                   uint64_t chunk_size = LineStream::kChunkSize) const {
    return LineStream(File::Open(Write("file", bytes)), threads, chunk_size);
  }
};

// Returns the tokens of some rows. Checks that each row comes exactly once.
Tokens TokensOf(const LineStream& lines, uint64_t first, uint64_t count, int threads = 2) {
  Tokens tokens(count);
  std::vector<int> seen(count);
  std::mutex mutex;
  lines.ForEachBatch(first, count, threads,
                     [&](uint64_t row, std::span<const std::string_view> batch) {
                       const std::lock_guard<std::mutex> lock(mutex);
                       for (const std::string_view token : batch) {
                         ++seen.at(row - first);
                         tokens.at(row++ - first) = token;
                       }
                     });
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<int64_t>(count));
  return tokens;
}

Tokens TokensOf(const LineStream& lines) { return TokensOf(lines, 0, lines.size()); }

Tokens TokensOf(const Vocabulary& vocabulary) {
  Tokens tokens;
  for (uint64_t row = 0; row < vocabulary.size(); ++row) tokens.emplace_back(vocabulary.token(row));
  return tokens;
}

std::string MessageOf(const auto& call) {
  try {
    call();
  } catch (const CorruptionError& error) {
    return error.what();
  }
  return "";
}

// Texts of few letters contain every kind of line end and empty line; chunks of every size put
// every byte at the border of a chunk.
TEST_F(LineStreamTest, AgreesWithVocabularyForEveryChunkSize) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    std::string text(random() % 40, ' ');
    for (char& c : text) c = "\n\raaaaa"[random() % 7];
    if (round % 2 == 0) {  // no line is empty
      for (size_t i = 0; i < text.size(); ++i) {
        if (EndsEmptyLine(AsBytes(text).data() + i, i) && text[i] == '\n') text[i] = 'b';
      }
    }
    const std::shared_ptr<const File> file = File::Open(Write("file", text));
    const VocabularyPtr vocabulary = Vocabulary::OfFile(*file, 1);
    for (uint64_t chunk_size = 1; chunk_size <= text.size() + 1; ++chunk_size) {
      const LineStream lines(file, 1, chunk_size);
      ASSERT_EQ(lines.size(), vocabulary->size()) << round << " " << chunk_size;
      ASSERT_EQ(lines.first_empty_line(), vocabulary->first_empty_line()) << round;
      ASSERT_FALSE(round % 2 == 0 && lines.first_empty_line());
      if (lines.first_empty_line()) {
        ASSERT_EQ(lines.end_of_first_empty_line(), vocabulary->end_of_first_empty_line());
      } else {
        ASSERT_EQ(TokensOf(lines), TokensOf(*vocabulary)) << round << " " << chunk_size;
      }
    }
  }
}

TEST_F(LineStreamTest, EmptyLinesAtEveryOffsetOfABlock) {
  for (size_t length = 58; length <= 130; ++length) {
    for (const std::string end : {"\n", "\r\n"}) {
      const std::string before = std::string(length, 'x') + "\n";
      const auto file = File::Open(Write("file", before + end + "y\n" + end));
      const auto other = File::Open(Write("other", before + "\r" + end));
      for (const uint64_t chunk_size : {uint64_t{64}, uint64_t{67}, LineStream::kChunkSize}) {
        const LineStream lines(file, 1, chunk_size);
        EXPECT_EQ(lines.first_empty_line(), 1u) << length;
        EXPECT_EQ(lines.end_of_first_empty_line(), before.size() + end.size()) << length;
        // "\r\r\n" is the token "\r".
        EXPECT_EQ(LineStream(other, 1, chunk_size).first_empty_line() == 1u, end == "\n") << length;
      }
    }
  }
}

TEST_F(LineStreamTest, FilesWithoutLines) {
  EXPECT_EQ(Lines("").size(), 0u);
  EXPECT_EQ(Lines("\r").size(), 0u);
  EXPECT_EQ(TokensOf(Lines("a")), (Tokens{"a"}));
  EXPECT_EQ(TokensOf(Lines("a\n\r")), (Tokens{"a"}));
  EXPECT_EQ(TokensOf(Lines("a\n\r\r")), (Tokens{"a", "\r"}));
  EXPECT_EQ(TokensOf(Lines("a\nb\r")), (Tokens{"a", "b"}));
}

TEST_F(LineStreamTest, RangesOfRows) {
  Tokens tokens(10'000);
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = std::to_string(i);
    text += tokens[i] + (i % 3 == 0 ? "\r\n" : "\n");
  }
  for (const uint64_t chunk_size : {uint64_t{100}, LineStream::kChunkSize}) {
    const LineStream lines = Lines(text, 3, chunk_size);
    ASSERT_EQ(lines.size(), tokens.size());
    for (const uint64_t first : {0u, 1u, 2047u, 2048u, 5000u, 9999u, 10000u}) {
      for (const uint64_t count : {0u, 1u, 2047u, 2048u, 2049u, 5000u, 10000u}) {
        if (count > tokens.size() - first) continue;
        const auto begin = tokens.begin() + static_cast<int64_t>(first);
        EXPECT_EQ(TokensOf(lines, first, count, 3),
                  Tokens(begin, begin + static_cast<int64_t>(count)))
            << first << " " << count;
      }
    }
  }
}

TEST_F(LineStreamTest, LinesLongerThanChunks) {
  for (const std::string end : {"\n", "\r\n"}) {
    for (const size_t length : {131'070u, 131'071u, 131'072u, 131'073u, 1'000'000u}) {
      const Tokens tokens{"first", std::string(length, 'x'), "third", std::string(length, 'y'),
                          "last"};
      std::string text;
      for (const std::string& token : tokens) text += token + end;
      EXPECT_EQ(TokensOf(Lines(text)), tokens) << length;
      text.resize(text.size() - end.size());
      EXPECT_EQ(TokensOf(Lines(text)), tokens) << length;
      EXPECT_EQ(TokensOf(Lines(text, 2, 1000)), tokens) << length;
    }
  }
}

TEST_F(LineStreamTest, OneHugeLine) {
  const std::string token(40'000'000, 'x');
  const LineStream lines = Lines(token + "\nb\n");
  const VocabularyPtr old_vocabulary = OfTokens({"b", token});
  const JoinResult result = Join(lines, *old_vocabulary, {});
  EXPECT_EQ(std::vector<int64_t>(result.ids().begin(), result.ids().end()),
            (std::vector<int64_t>{1, 0}));
}

TEST_F(LineStreamTest, FileShrinksBetweenTheReads) {
  const LineStream lines = Lines("a\nb\nc\n", 1, 2);
  std::filesystem::resize_file(Path("file"), 4);
  EXPECT_EQ(TokensOf(lines, 0, 2), (Tokens{"a", "b"}));
  EXPECT_TRUE(Contains(MessageOf([&] { TokensOf(lines); }), "ends early"));
  const auto file = File::Open(Path("file"));
  std::filesystem::resize_file(Path("file"), 1);
  EXPECT_TRUE(Contains(MessageOf([&] { LineStream(file, 1); }), "ends early"));
}

TEST_F(LineStreamTest, FileGrowsAfterOpen) {
  const LineStream lines = Lines("a\nb");
  std::ofstream(Path("file"), std::ios::app) << "c\nd\n";
  EXPECT_EQ(TokensOf(lines), (Tokens{"a", "b"}));
}

TEST_F(LineStreamTest, FileIsRewrittenBetweenTheReads) {
  const auto after = [this](const std::string& before, const std::string& now) {
    const LineStream lines = Lines(before);
    EXPECT_EQ(before.size(), now.size());
    std::fstream(Path("file"), std::ios::in | std::ios::out | std::ios::binary) << now;
    return MessageOf([&] { TokensOf(lines); });
  };
  const std::string message = after("a\nb\nc\n", "a\nbbc\n");  // fewer
  EXPECT_TRUE(Contains(message, Path("file") + " has changed while it was read")) << message;
  EXPECT_TRUE(Contains(message, "offset 0 to 6") && Contains(message, "3 lines")) << message;
  EXPECT_NE(after("a\nbbc\n", "a\nb\nc\n"), "");     // more
  EXPECT_NE(after("a\nbb\nc\n", "\nabb\nc\n"), "");  // an empty one
  EXPECT_NE(after("aa\nbb\ncc", "\r\nabb\ncc"), "");
  EXPECT_EQ(after("aa\nb\n", "a\nbb\n"), "");  // as many lines: not detected
}

TEST_F(LineStreamTest, PropagatesExceptionsOfTheVisitor) {
  const LineStream lines = Lines("a\nb\n");
  EXPECT_THROW(lines.ForEachBatch(0, 2, 2, [](uint64_t, auto) { throw std::out_of_range("x"); }),
               std::out_of_range);
}

TEST_F(LineStreamTest, FileIsTooLarge) {
  const std::string path = Write("file", "");
  std::error_code error;
  std::filesystem::resize_file(path, uint64_t{1} << 40, error);
  if (error) GTEST_SKIP() << "no sparse files of a terabyte here";
  EXPECT_THROW(LineStream(File::Open(path), 1), UnsupportedError);
}

// Both ways to join, with chunks so small that every line spans several.
TEST_F(LineStreamTest, JoinsAgreeWithAndWithoutTheVocabularyInMemory) {
  std::mt19937_64 random(2);
  const auto text = [&random](size_t count, const std::string& end) {
    std::string lines;
    for (size_t i = 0; i < count; ++i) lines += std::to_string(random() % 3000) + end;
    return lines;
  };
  JoinOptions options;
  options.old_duplicates = Duplicates::kTakeFirst;
  for (int round = 0; round < 20; ++round) {
    const size_t count = 1 + random() % 5000;
    const auto new_file = File::Open(Write("new", text(count, round % 2 ? "\r\n" : "\n")));
    const auto old_file = File::Open(Write("old", text(2000, "\n")));
    const VocabularyPtr new_vocabulary = Vocabulary::OfFile(*new_file, 1);
    const VocabularyPtr old_vocabulary = Vocabulary::OfFile(*old_file, 1);
    options.new_offset = static_cast<int64_t>(random() % (count + 1));
    options.threads = 1 + round % 4;
    const JoinResult held = Join(*new_vocabulary, *old_vocabulary, options);
    const LineStream lines(new_file, options.threads, 1 + random() % 64);
    for (const JoinResult& result :
         {Join(lines, *old_vocabulary, options), JoinFiles(new_file, old_file, options)}) {
      EXPECT_EQ(result.num_present, held.num_present);
      EXPECT_TRUE(std::equal(result.ids().begin(), result.ids().end(), held.ids().begin(),
                             held.ids().end()));
    }
  }
}

TEST_F(LineStreamTest, ChecksTheNewFileBeforeItReadsTheOldOne) {
  const auto old_file = File::Open(Write("old", "a\nb\n"));
  std::filesystem::resize_file(Path("old"), 1);
  const auto message = [&](std::string_view text) {
    return MessageOf([&] { JoinFiles(File::Open(Write("new", text)), old_file, {}); });
  };
  EXPECT_TRUE(Contains(message("a\n\nb\n"), "line 2 of " + Path("new") + " is empty"));
  EXPECT_TRUE(Contains(message(""), Path("new") + " has 0 bytes and no line"));
  EXPECT_TRUE(Contains(message("a\n"), Path("old") + " ends early"));
}

}  // namespace
}  // namespace tensorbundle
