// SPDX-License-Identifier: Apache-2.0
// Tokens in rows: a text file with one per line, or a sequence in memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/line_index.h"
#include "tensorbundle/vocab/page_memory.h"

namespace tensorbundle {

// Owns the bytes of the tokens, and what finds them there: a byte per 32 of a file; of a sequence,
// five per 32 and one per token. Immutable and thread-safe.
//
// A token's place is the offset of its first byte in the text that is kept of it; what ends it is
// kept as well, so that even empty ones have places of their own, in the order of their rows.
class Vocabulary {
 public:
  // Bytes that may be read (and are zero or belong to the next tokens) behind the last byte of each
  // token, so that short ones need no loop.
  static constexpr size_t kReadablePadding = 16;

  static constexpr uint64_t kMaxSize = (uint64_t{1} << 40) - 1;  // of the text: a terabyte

  // Reads a file of lines. One '\r' before the end of a line does not belong to its token; see
  // line_survey.h for the rest. The bytes are read once, never mapped: what happens to the file
  // later does not matter.
  //
  // Lines that TensorFlow refuses are kept here, because it depends on their use whether it does:
  // see join.h. Throws as File::ReadAt, UnsupportedError for a file of a terabyte or more,
  // std::bad_alloc.
  static std::shared_ptr<const Vocabulary> OfFile(const File& file, int threads);

  // Copies tokens that lie one behind the other: token i is [offsets[i], offsets[i + 1]) of
  // `bytes`. Any bytes may be in them, they may be empty, and '\r' and '\n' mean nothing. `name` is
  // for messages. Throws std::invalid_argument for offsets that descend or lie outside, or none at
  // all; UnsupportedError and std::bad_alloc as above.
  static std::shared_ptr<const Vocabulary> OfTokens(std::string name, ByteSpan bytes,
                                                    std::span<const uint64_t> offsets);

  // Throws UnsupportedError if a vocabulary of `size` bytes or tokens, as `unit` says, is too
  // large.
  static void CheckSize(const std::string& name, const char* unit, uint64_t size);

  const std::string& name() const { return name_; }  // of a file, its path
  bool is_file() const { return identity_.has_value(); }
  const std::optional<FileIdentity>& identity() const { return identity_; }
  uint64_t size() const { return lines_.num_lines(); }

  // The token of a row below size(). Borrowed. This searches: TokenAt() is faster.
  std::string_view token(uint64_t row) const {
    return Token(lines_.BeginOf(row), lines_.EndOf(row));
  }

  // The token at a place, and its row.
  std::string_view TokenAt(uint64_t place) const { return Token(place, lines_.EndAt(place)); }
  uint64_t RowAt(uint64_t place) const { return lines_.LineAt(place); }

  // Call it some time before TokenAt() and RowAt().
  void Prefetch(uint64_t place) const {
    __builtin_prefetch(text_ + place);
    __builtin_prefetch(text_ + place + kReadablePadding);
    lines_.Prefetch(place);
  }

  // Chunks have some 64 kB of tokens each, in the order of their rows.
  size_t ChunkOf(uint64_t row) const { return lines_.ChunkOf(row); }

  // Calls visit(row, place, token) for each token that ends in a chunk until it returns false.
  template <typename Visit>
  void ForEachIn(size_t chunk, const Visit& visit) const {
    lines_.ForEachIn(chunk, [&](uint64_t row, uint64_t begin, uint64_t end) {
      return visit(row, begin, Token(begin, end));
    });
  }

  // Called by several threads at the same time, with the row of the first of the tokens.
  using Visit = std::function<void(uint64_t row, std::span<const std::string_view> tokens)>;

  // Hands out the tokens of the rows [first, first + count), all of which there must be, in batches
  // in no order.
  void ForEachBatch(uint64_t first, uint64_t count, int threads, const Visit& visit) const;

  // The first line of a file that is empty, if any, and then the offset of the byte behind it.
  std::optional<uint64_t> first_empty_line() const { return lines_.first_empty(); }
  uint64_t end_of_first_empty_line() const { return lines_.end_of_first_empty(); }

  // "row 7 of the tokens" or "line 8 of FILE", which counts from 1 as editors do.
  std::string Describe(uint64_t row) const;

 private:
  Vocabulary(std::string name, uint64_t text_size);

  std::string_view Token(uint64_t begin, uint64_t end) const {
    if (is_file() && end != begin && text_[end - 1] == '\r') --end;
    return AsText({text_ + begin, text_ + end});
  }

  std::string name_;
  PageMemory memory_;  // the text and its padding
  const uint8_t* text_;
  LineIndex lines_;
  std::optional<FileIdentity> identity_;
};

}  // namespace tensorbundle
