// SPDX-License-Identifier: Apache-2.0
// Vocabularies of tokens in memory, for tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle::testing {

using Tokens = std::vector<std::string>;
using VocabularyPtr = std::shared_ptr<const Vocabulary>;

inline VocabularyPtr OfTokens(const Tokens& tokens) {
  std::string bytes;
  std::vector<uint64_t> offsets{0};
  for (const std::string& token : tokens) {
    bytes += token;
    offsets.push_back(bytes.size());
  }
  return Vocabulary::OfTokens("given", AsBytes(bytes), offsets);
}

}  // namespace tensorbundle::testing
