// SPDX-License-Identifier: Apache-2.0
// Elements without a fixed size: strings and variants. docs/format.md, "Strings and variants".
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tensorbundle/bundle/checkpoint.h"

namespace tensorbundle {

// The elements of one slice, row-major, and the stored bytes that contain them.
class StringElements {
 public:
  StringElements(std::vector<uint8_t> bytes, std::vector<ByteSpan> elements)
      : bytes_(std::move(bytes)), elements_(std::move(elements)) {}
  StringElements(StringElements&&) = default;

  size_t size() const { return elements_.size(); }
  std::string_view operator[](size_t i) const { return AsText(elements_[i]); }

 private:
  std::vector<uint8_t> bytes_;
  std::vector<ByteSpan> elements_;  // into bytes_, whose memory stays where it is when moved
};

// Reads one slice of a tensor of strings or variants; a variant's element is its serialized
// VariantTensorDataProto, not parsed. Checksums are compared when `verify` is set.
// Throws CorruptionError when the stored bytes are not exactly such elements; as DataFiles::Get.
StringElements ReadStrings(const Checkpoint& checkpoint, const Tensor& tensor,
                           const StoredSlice& slice, bool verify);

}  // namespace tensorbundle
