// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/vocabulary.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/file.h"
#include "vocab/tokens.h"
#include "vocab/vocabulary_files.h"

namespace tensorbundle {
namespace {

using namespace std::string_literals;

using testing::Contains;
using testing::kManyTokens;
using testing::Lines;
using testing::OfTokens;
using testing::Tokens;
using testing::TokensOf;
using testing::VocabularyPtr;
using VocabularyTest = testing::VocabularyFiles;

TEST_F(VocabularyTest, LinesEndInNewlines) {
  const auto tokens = [this](std::string_view bytes) { return TokensOf(*OfFile("file", bytes)); };
  EXPECT_EQ(tokens("a\nbc\nd\n"), (Tokens{"a", "bc", "d"}));
  EXPECT_EQ(tokens("a\nbc\nd"), (Tokens{"a", "bc", "d"}));
  EXPECT_EQ(tokens("a"), (Tokens{"a"}));
  EXPECT_EQ(tokens(""), Tokens{});
  EXPECT_EQ(tokens("a\n\nb\n"), (Tokens{"a", "", "b"}));
}

TEST_F(VocabularyTest, RemovesOneCarriageReturn) {
  const auto tokens = [this](std::string_view bytes) { return TokensOf(*OfFile("file", bytes)); };
  EXPECT_EQ(tokens("a\r\nb\r\n"), (Tokens{"a", "b"}));
  EXPECT_EQ(tokens("a\r\nb\r"), (Tokens{"a", "b"}));
  EXPECT_EQ(tokens("a\r\r\nb\r\r"), (Tokens{"a\r", "b\r"}));
  EXPECT_EQ(tokens("a\rb\n\rc\n"), (Tokens{"a\rb", "\rc"}));
  EXPECT_EQ(tokens("a\n\r"), (Tokens{"a"}));  // alone at the end, it is no line
  EXPECT_EQ(tokens("\r"), Tokens{});
  EXPECT_EQ(tokens("a\n\r\r"), (Tokens{"a", "\r"}));
}

TEST_F(VocabularyTest, LinesAcrossChunks) {
  for (const std::string& end : {"\n"s, "\r\n"s}) {
    for (const size_t length : {524'286u, 524'287u, 524'288u, 524'289u, 1'600'000u}) {
      const Tokens tokens{"first", std::string(length, 'x'), "third", std::string(length, 'y'),
                          "last"};
      for (const int threads : {1, 3}) {
        const VocabularyPtr vocabulary = OfFile("file", Lines(tokens, end), threads);
        EXPECT_EQ(TokensOf(*vocabulary), tokens) << length;
        EXPECT_EQ(vocabulary->first_empty_line(), std::nullopt);
      }
    }
  }
}

// The line before the first '\n' of a chunk begins in an earlier one.
TEST_F(VocabularyTest, EmptyLinesAtChunkBorders) {
  for (size_t length = 524'284; length <= 524'290; ++length) {
    const std::string text = std::string(length, 'x') + "\n\r\nb\n\n";
    const VocabularyPtr vocabulary = OfFile("file", text);
    EXPECT_EQ(vocabulary->first_empty_line(), 1u) << length;
    EXPECT_EQ(vocabulary->end_of_first_empty_line(), length + 3) << length;
  }
}

// The index counts lines in blocks of 64 bytes and chunks of 64 KiB. Files that fill their last
// block, or miss that by a few bytes, find every line, with any end of the last one.
TEST_F(VocabularyTest, FileSizesAroundMultiplesOfBlocksAndChunks) {
  for (const size_t unit : {size_t{64}, size_t{128}, size_t{65'536}, size_t{131'072}}) {
    for (size_t size = unit - 3; size <= unit + 3; ++size) {
      for (const std::string& end : {"\n"s, "\r\n"s, ""s, "\r"s, "\n\r"s, "x"s}) {
        Tokens tokens{"first", "second"};
        const std::string begin = "first\nsecond\n";
        tokens.emplace_back(size - begin.size() - end.size(), 'y');
        const std::string text = begin + tokens.back() + end;
        if (end == "x") tokens.back() += "x";
        const VocabularyPtr vocabulary = OfFile("file", text);
        EXPECT_EQ(TokensOf(*vocabulary), tokens) << size << EscapeBytes(end);
        for (uint64_t row = 0, offset = 0; row < tokens.size(); ++row) {
          EXPECT_EQ(vocabulary->RowAt(offset), row) << size << EscapeBytes(end);
          EXPECT_EQ(vocabulary->TokenAt(offset), tokens[row]) << size << EscapeBytes(end);
          offset += tokens[row].size() + 1;
        }
      }
    }
  }
}

TEST_F(VocabularyTest, WrongOffsets) {
  const auto make = [](std::vector<uint64_t> offsets) {
    Vocabulary::OfTokens("t", AsBytes("abc"), offsets);
  };
  EXPECT_NO_THROW(make({0, 1, 3}));
  EXPECT_NO_THROW(make({1, 2}));
  EXPECT_THROW(make({}), std::invalid_argument);
  EXPECT_THROW(make({0, 2, 1}), std::invalid_argument);
  EXPECT_THROW(make({0, 4}), std::invalid_argument);
  EXPECT_THROW(make({UINT64_MAX}), std::invalid_argument);
}

TEST_F(VocabularyTest, MissingFileAndDirectory) {
  EXPECT_THROW(File::Open(Path("missing")), CheckpointNotFoundError);
  EXPECT_THROW(File::Open(Path("")), IOFailure);
}

TEST_F(VocabularyTest, FileShrinksAfterOpen) {
  const std::string path = Write("file", "a\nb\n");
  const auto file = File::Open(path);
  std::filesystem::resize_file(path, 2);
  EXPECT_THROW(Vocabulary::OfFile(*file, 1), CorruptionError);
}

TEST_F(VocabularyTest, OutlivesItsFile) {
  const std::string path = Write("file", "a\nb\n");
  const VocabularyPtr vocabulary = Vocabulary::OfFile(*File::Open(path), 1);
  std::filesystem::resize_file(path, 0);
  EXPECT_EQ(TokensOf(*vocabulary), (Tokens{"a", "b"}));
  EXPECT_EQ(vocabulary->identity()->size, 4u);
}

}  // namespace
}  // namespace tensorbundle
