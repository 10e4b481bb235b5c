// SPDX-License-Identifier: Apache-2.0
// OrderedCode, the encoding in which a stored slice's name and extents make up its key.
//
//   NumIncreasing(0)  String(tensor name)  NumIncreasing(rank)  { SignedNum(start)
//   SignedNum(length) } per axis
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tensorbundle/bundle/tensor_slice.h"

namespace tensorbundle {

void AppendNumIncreasing(uint64_t value, std::string* out);
void AppendOrderedString(std::string_view text, std::string* out);
void AppendSignedNum(int64_t value, std::string* out);

// The key of one slice. `extents` as they are spelled in the file (a whole axis is start 0,
// kFullLength): equal boxes spelled differently have different keys.
std::string SliceKey(std::string_view name, std::span<const Extent> extents);

// Whether `key` is a complete slice key, of whatever tensor. A plain tensor's name may begin with
// the same zero byte, so the whole key is parsed.
bool IsSliceKey(std::string_view key);

}  // namespace tensorbundle
