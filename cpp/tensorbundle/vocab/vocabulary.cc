// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/vocab/vocabulary.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

static_assert(Vocabulary::kReadablePadding <= kTextPadding);

// Offsets come from the caller, who may have computed them wrongly.
void CheckOffsets(const std::string& name, std::span<const uint64_t> offsets, uint64_t num_bytes) {
  if (offsets.empty()) {
    throw std::invalid_argument("the vocabulary " + name +
                                " needs one offset more than it has tokens, not none");
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
  if (size < PackedOffsets::kMax) return;
  throw UnsupportedError("the vocabulary " + name + " has " + std::to_string(size) + " " + unit +
                         "; at most " + std::to_string(PackedOffsets::kMax - 1) + " are supported");
}

Vocabulary::Vocabulary(std::string name, uint64_t num_bytes)
    : name_(std::move(name)),
      memory_(static_cast<size_t>(num_bytes) + kTextPadding),
      text_(static_cast<const uint8_t*>(memory_.data())) {}

std::shared_ptr<const Vocabulary> Vocabulary::OfFile(const File& file, int threads) {
  CheckSize(file.path(), "bytes", file.size());
  const std::shared_ptr<Vocabulary> made(new Vocabulary(file.path(), file.size()));
  LineIndex index = ReadLines(file, static_cast<uint8_t*>(made->memory_.data()), threads);
  made->starts_ = std::move(index.starts);
  made->size_ = index.num_lines;
  made->first_empty_ = index.first_empty;
  made->separator_size_ = 1;
  made->identity_ = file.identity();
  return made;
}

std::shared_ptr<const Vocabulary> Vocabulary::OfTokens(std::string name, ByteSpan bytes,
                                                       std::span<const uint64_t> offsets) {
  CheckOffsets(name, offsets, bytes.size());
  CheckSize(name, "bytes", bytes.size());
  CheckSize(name, "tokens", offsets.size() - 1);
  const std::shared_ptr<Vocabulary> made(new Vocabulary(std::move(name), bytes.size()));
  std::copy(bytes.begin(), bytes.end(), static_cast<uint8_t*>(made->memory_.data()));
  made->size_ = offsets.size() - 1;
  made->starts_ = PackedOffsets(offsets.size());
  for (size_t i = 0; i < offsets.size(); ++i) made->starts_.Set(i, offsets[i]);
  return made;
}

std::optional<uint64_t> Vocabulary::first_empty_line() const {
  if (first_empty_ == LineIndex::kNoLine) return std::nullopt;
  return first_empty_;
}

std::string Vocabulary::Describe(uint64_t row) const {
  return is_file() ? "line " + std::to_string(row + 1) + " of " + name_
                   : "token " + std::to_string(row) + " of " + name_;
}

}  // namespace tensorbundle
