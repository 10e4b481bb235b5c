// SPDX-License-Identifier: Apache-2.0
// A vocabulary: tokens in rows, from a text file with one token per line or from a sequence in
// memory.
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
#include "tensorbundle/io/page_buffer.h"
#include "tensorbundle/vocab/line_index.h"

namespace tensorbundle {

// Owns the text of the tokens and an index of it. The index takes 1/32 of the size of a file, or
// 5/32 of the size of a sequence plus a byte per token. Threads: immutable and thread-safe.
//
// The offset of a token is that of its first byte in the text. Each token is followed by one byte
// that ends it, so that offsets are distinct, also those of empty tokens, and ascend with the rows.
class Vocabulary {
 public:
  // The number of readable bytes after each token: zeros or the next tokens. They let the hash read
  // short tokens without a loop.
  static constexpr size_t kReadablePadding = 16;

  static constexpr uint64_t kMaxSize = (uint64_t{1} << 40) - 1;  // of the text: a terabyte

  // Reads a file of lines; line_scan.h defines a line. One '\r' at the end of a line does not
  // belong to its token. Reads the bytes once and never maps them: later changes of the file have
  // no effect.
  //
  // Accepts lines that TensorFlow rejects; join.h checks them, because TensorFlow rejects them only
  // in some uses.
  // Throws: UnsupportedError for a file of a terabyte or more; CorruptionError if the file shrinks;
  // IOFailure; std::bad_alloc.
  static std::shared_ptr<const Vocabulary> OfFile(const File& file, int threads);

  // Copies a sequence of tokens: token i is [offsets[i], offsets[i + 1]) of `bytes`. Tokens may be
  // empty and have any bytes; '\r' and '\n' have no special meaning. `name` is for messages.
  // Throws: std::invalid_argument for offsets that descend or are out of range, or if there are no
  // offsets; UnsupportedError and std::bad_alloc as above.
  static std::shared_ptr<const Vocabulary> OfTokens(std::string name, ByteSpan bytes,
                                                    std::span<const uint64_t> offsets);

  // Throws: UnsupportedError if `size` is kMaxSize or more. `unit` is what `size` counts, for the
  // message.
  static void CheckSize(const std::string& name, const char* unit, uint64_t size);

  const std::string& name() const { return name_; }  // the path of a file
  bool is_file() const { return identity_.has_value(); }
  const std::optional<FileIdentity>& identity() const { return identity_; }
  uint64_t size() const { return lines_.num_lines(); }

  // Returns the token of a row. Slower than TokenAt(), because it searches for the row.
  // Requires: row < size(). Lifetime: borrowed from the vocabulary.
  std::string_view token(uint64_t row) const {
    return Token(lines_.BeginOf(row), lines_.EndOf(row));
  }

  // The token at an offset, and its row.
  std::string_view TokenAt(uint64_t offset) const { return Token(offset, lines_.EndAt(offset)); }
  uint64_t RowAt(uint64_t offset) const { return lines_.LineAt(offset); }

  // Prefetches the memory that TokenAt() and RowAt() read.
  void Prefetch(uint64_t offset) const {
    __builtin_prefetch(text_ + offset);
    __builtin_prefetch(text_ + offset + kReadablePadding);
    lines_.Prefetch(offset);
  }

  // The chunk that contains the end of a row. Chunks have 64 KiB of text each.
  size_t ChunkOf(uint64_t row) const { return lines_.ChunkOf(row); }

  // Calls visit(row, offset, token) for each token that ends in a chunk, until it returns false.
  template <typename Visit>
  void ForEachIn(size_t chunk, const Visit& visit) const {
    lines_.ForEachIn(chunk, [&](uint64_t row, uint64_t begin, uint64_t end) {
      return visit(row, begin, Token(begin, end));
    });
  }

  // Receives consecutive tokens and the row of the first of them. Called by several threads at the
  // same time.
  using Visit = std::function<void(uint64_t row, std::span<const std::string_view> tokens)>;

  // Calls `visit` with the tokens of rows [first, first + count), in batches, in any order.
  // Requires: the rows exist. Throws: what `visit` throws.
  void ForEachBatch(uint64_t first, uint64_t count, int threads, const Visit& visit) const;

  // The first empty line of a file, if any, and the offset after it.
  std::optional<uint64_t> first_empty_line() const { return lines_.first_empty(); }
  uint64_t end_of_first_empty_line() const { return lines_.end_of_first_empty(); }

  // Returns "token 7 of NAME" or "line 8 of FILE". Lines count from 1, as in editors.
  std::string Describe(uint64_t row) const;

 private:
  Vocabulary(std::string name, uint64_t text_size);

  std::string_view Token(uint64_t begin, uint64_t end) const {
    if (is_file() && end != begin && text_[end - 1] == '\r') --end;
    return AsText({text_ + begin, text_ + end});
  }

  std::string name_;
  HugePageBuffer memory_;  // the text and its padding
  const uint8_t* text_;
  LineIndex lines_;
  std::optional<FileIdentity> identity_;
};

}  // namespace tensorbundle
