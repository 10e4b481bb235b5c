// SPDX-License-Identifier: Apache-2.0
// Tokens in rows: a text file with one per line, or a sequence in memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/line_index.h"
#include "tensorbundle/vocab/packed_offsets.h"
#include "tensorbundle/vocab/page_memory.h"

namespace tensorbundle {

// Owns the bytes of the tokens, and five bytes more for each. Immutable and thread-safe.
class Vocabulary {
 public:
  // Bytes that may be read (and are zero or belong to the next tokens) behind the last byte of each
  // token, so that short ones need no loop.
  static constexpr size_t kReadablePadding = 16;

  // Reads a file of lines. One '\r' before the end of a line does not belong to its token; see
  // line_index.h for the rest. The bytes are read once, never mapped: what happens to the file
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
  uint64_t size() const { return size_; }

  // The token of a row below size(). Borrowed.
  std::string_view token(uint64_t row) const {
    const uint8_t* begin = text_ + starts_[row];
    const uint8_t* end = text_ + starts_[row + 1] - separator_size_;
    if (separator_size_ != 0 && end != begin && end[-1] == '\r') --end;
    return AsText({begin, end});
  }

  // The first line of a file that is empty, if any, and then the offset of the byte behind it.
  std::optional<uint64_t> first_empty_line() const;
  uint64_t end_of_first_empty_line() const { return starts_[first_empty_ + 1]; }

  // Call the first some time before token(row), the second some time after the first.
  void PrefetchPlace(uint64_t row) const { starts_.PrefetchPair(row); }
  void PrefetchBytes(uint64_t row) const {
    const uint8_t* begin = text_ + starts_[row];
    __builtin_prefetch(begin);
    __builtin_prefetch(begin + kReadablePadding);
  }

  // "row 7 of the tokens" or "line 8 of FILE", which counts from 1 as editors do.
  std::string Describe(uint64_t row) const;

 private:
  Vocabulary(std::string name, uint64_t num_bytes);

  std::string name_;
  PageMemory memory_;  // the text and its padding
  const uint8_t* text_;
  PackedOffsets starts_;  // size_ + 1 of them
  uint64_t size_ = 0;
  uint64_t separator_size_ = 0;  // what lies between two tokens besides '\r'
  uint64_t first_empty_ = LineIndex::kNoLine;
  std::optional<FileIdentity> identity_;
};

}  // namespace tensorbundle
