// SPDX-License-Identifier: Apache-2.0
// The key of a stored slice in an index, in OrderedCode:
//
//   NumIncreasing(0)  String(tensor name)  NumIncreasing(rank)
//   { SignedNum(start)  SignedNum(length) } per axis
//
// OrderedCode keeps the order: encodings compare as bytes like the values compare.
//   NumIncreasing  a byte with the size n, then n big-endian bytes without leading zeros
//   String         00 as 00 FF, FF as FF 00, then the end 00 01
//   SignedNum      n big-endian bytes whose first n bits are inverted to carry n and the sign
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

// Returns the key of one slice. Equal slices that are encoded differently have different keys.
std::string SliceKey(std::string_view name, EncodedSlice slice);

// Whether `key` is a complete slice key, of any tensor. Decodes the whole key, because the name of
// a plain tensor may also begin with a zero byte.
bool IsSliceKey(std::string_view key);

}  // namespace tensorbundle
