// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/vocabulary.h"

#include <algorithm>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"

namespace tensorbundle {
namespace {

static_assert(Vocabulary::kReadablePadding <= kTextPadding);

constexpr uint64_t kMarksPerWord = 64;

// Throws: std::invalid_argument.
void CheckOffsets(const std::string& name, std::span<const uint64_t> offsets, uint64_t num_bytes) {
  if (offsets.empty()) {
    throw std::invalid_argument("the vocabulary " + name +
                                " has no offsets; expected one more than it has tokens");
  }
  for (size_t i = 0; i < offsets.size(); ++i) {
    const uint64_t limit = i + 1 < offsets.size() ? offsets[i + 1] : num_bytes;
    if (offsets[i] <= limit) continue;
    throw std::invalid_argument("the vocabulary " + name + " has offset " +
                                std::to_string(offsets[i]) + " at index " + std::to_string(i) +
                                ", expected at most " + std::to_string(limit));
  }
}

}  // namespace

void Vocabulary::CheckSize(const std::string& name, const char* unit, uint64_t size) {
  if (size < kMaxSize) return;
  throw UnsupportedError("the vocabulary " + name + " has " + std::to_string(size) + " " + unit +
                         "; at most " + std::to_string(kMaxSize - 1) + " are supported");
}

Vocabulary::Vocabulary(std::string name, uint64_t text_size)
    : name_(std::move(name)),
      memory_(static_cast<size_t>(text_size) + kTextPadding),
      text_(static_cast<const uint8_t*>(memory_.data())) {}

std::shared_ptr<const Vocabulary> Vocabulary::OfFile(const File& file, int threads) {
  CheckSize(file.path(), "bytes", file.size());
  const std::shared_ptr<Vocabulary> vocabulary(new Vocabulary(file.path(), file.size() + 1));
  vocabulary->lines_ =
      LineIndex::Read(file, static_cast<uint8_t*>(vocabulary->memory_.data()), threads);
  vocabulary->identity_ = file.identity();
  return vocabulary;
}

// One byte follows each token in the text; its bit in the marks is set.
std::shared_ptr<const Vocabulary> Vocabulary::OfTokens(std::string name, ByteSpan bytes,
                                                       std::span<const uint64_t> offsets) {
  CheckOffsets(name, offsets, bytes.size());
  const size_t num_tokens = offsets.size() - 1;
  const uint64_t text_size = offsets.back() - offsets.front() + num_tokens;
  CheckSize(name, "bytes and tokens", text_size);
  const std::shared_ptr<Vocabulary> vocabulary(new Vocabulary(std::move(name), text_size));
  auto* text = static_cast<uint8_t*>(vocabulary->memory_.data());
  HugePageBuffer marks((text_size + kMarksPerWord - 1) / kMarksPerWord * sizeof(uint64_t));
  uint64_t end = 0;
  for (size_t i = 0; i < num_tokens; ++i) {
    const ByteSpan token = bytes.subspan(offsets[i], offsets[i + 1] - offsets[i]);
    std::copy(token.begin(), token.end(), text + end);
    end += token.size();
    static_cast<uint64_t*>(marks.data())[end / kMarksPerWord] |= uint64_t{1} << end % kMarksPerWord;
    ++end;
  }
  vocabulary->lines_ = LineIndex::Marked(text, text_size, std::move(marks));
  return vocabulary;
}

void Vocabulary::ForEachBatch(uint64_t first, uint64_t count, int threads,
                              const Visit& visit) const {
  if (count == 0) return;
  const size_t begin = lines_.ChunkOf(first);
  const size_t end = lines_.ChunkOf(first + (count - 1)) + 1;
  ParallelFor(end - begin, threads, [&](size_t i) {
    std::vector<std::string_view> tokens;
    uint64_t first_row = 0;
    ForEachIn(begin + i, [&](uint64_t row, uint64_t, std::string_view token) {
      if (row < first) return true;
      if (row - first >= count) return false;
      if (tokens.empty()) first_row = row;
      tokens.push_back(token);
      return true;
    });
    if (!tokens.empty()) visit(first_row, tokens);
  });
}

std::string Vocabulary::Describe(uint64_t row) const {
  return is_file() ? "line " + std::to_string(row + 1) + " of " + name_
                   : "token " + std::to_string(row) + " of " + name_;
}

}  // namespace tensorbundle
