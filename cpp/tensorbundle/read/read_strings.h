// SPDX-License-Identifier: Apache-2.0
// Elements without a fixed size: strings and variants. docs/format.md, "Strings and variants".
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>

#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/string_codec.h"

namespace tensorbundle {

// The elements of one slice, row-major. Owns the bytes that they refer to.
class StringElements {
 public:
  StringElements(std::unique_ptr<const uint8_t[]> bytes, ElementOffsets offsets)
      : bytes_(std::move(bytes)), offsets_(std::move(offsets)) {}

  size_t size() const { return offsets_.size(); }
  std::string_view operator[](size_t i) const { return AsText(offsets_.Of(bytes_.get(), i)); }

 private:
  std::unique_ptr<const uint8_t[]> bytes_;
  ElementOffsets offsets_;
};

// Reads one slice of a tensor of strings or variants. An element of a variant is its serialized
// VariantTensorDataProto, not parsed. Compares the checksums if `verify` is set.
// Throws CorruptionError if the stored bytes are not exactly such elements; what DataFiles::Get and
// File::ReadAt throw.
StringElements ReadStrings(const Checkpoint& checkpoint, const Tensor& tensor,
                           const StoredSlice& slice, bool verify);

}  // namespace tensorbundle
