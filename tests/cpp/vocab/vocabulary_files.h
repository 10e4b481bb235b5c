// SPDX-License-Identifier: Apache-2.0
// Vocabulary files, for tests.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "temp_dir.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/vocabulary.h"
#include "vocab/tokens.h"

namespace tensorbundle::testing {

// Larger than the slices that threads take of a file or of a vocabulary.
inline constexpr size_t kManyTokens = 150'000;

// Writes files into a directory of its own.
class VocabularyFiles : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return directory_ / name; }

  std::string Write(const std::string& name, std::string_view bytes) const {
    return directory_.Write(name, bytes);
  }

  VocabularyPtr OfFile(const std::string& name, std::string_view bytes, int threads = 2) const {
    return Vocabulary::OfFile(*File::Open(Write(name, bytes)), threads);
  }

  const TempDir directory_;
};

inline Tokens TokensOf(const Vocabulary& vocabulary) {
  Tokens tokens;
  for (uint64_t row = 0; row < vocabulary.size(); ++row) tokens.emplace_back(vocabulary.token(row));
  return tokens;
}

inline std::string Lines(const Tokens& tokens, const std::string& end = "\n") {
  std::string text;
  for (const std::string& token : tokens) text += token + end;
  return text;
}

inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace tensorbundle::testing
