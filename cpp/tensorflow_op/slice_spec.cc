// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/slice_spec.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <vector>

#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {
namespace {

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> fields;
  while (true) {
    const size_t end = text.find(separator);
    fields.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return fields;
    text.remove_prefix(end + 1);
  }
}

// Accepts white space around a number, and "+" before it, as TensorFlow 2.21 does.
std::optional<int64_t> Number(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\n\v\f\r";
  text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  text.remove_suffix(text.size() - (text.find_last_not_of(kSpaces) + 1));
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

[[noreturn]] void Refuse(const std::string& what, const std::string& spec,
                         Code code = Code::kInvalidArgument) {
  // Long specs are truncated.
  constexpr size_t kShown = 200;
  throw OpError(code, what + " in shape_and_slice specification \"" + spec.substr(0, kShown) +
                          (spec.size() > kShown ? "...\"" : "\""));
}

std::vector<int64_t> Dims(std::span<const std::string_view> words, const std::string& spec) {
  std::vector<int64_t> dims;
  for (const std::string_view word : words) {
    const std::optional<int64_t> dim = Number(word);
    if (!dim || *dim < 0) {
      Refuse("Non numerical dimension '" + std::string(word) + "'", spec);
    }
    dims.push_back(*dim);
  }
  return dims;
}

// Parses one axis: "-", or "start,length".
Extent ParseExtent(std::string_view text, int64_t dim, const std::string& spec,
                   Code out_of_bounds) {
  if (text == "-") return {0, dim};
  const size_t comma = text.find(',');
  std::optional<int64_t> start;
  std::optional<int64_t> length;
  if (comma != std::string_view::npos) {
    start = Number(text.substr(0, comma));
    length = Number(text.substr(comma + 1));
  }
  if (!start || !length) {
    Refuse("Expected a pair of numbers or '-' but got '" + std::string(text) + "'", spec);
  }
  if (*start < 0 || *length <= 0) {
    Refuse("Expected non-negative start and positive length but got start = " +
               std::to_string(*start) + ", length = " + std::to_string(*length),
           spec);
  }
  if (*start > dim || *length > dim - *start) {
    Refuse("Extent out of bounds: start = " + std::to_string(*start) +
               ", length = " + std::to_string(*length) + ", dimension = " + std::to_string(dim),
           spec, out_of_bounds);
  }
  return {*start, *length};
}

}  // namespace

Box ParseSliceSpec(const std::string& spec, const std::string& tensor,
                   std::span<const int64_t> shape, Code out_of_bounds) {
  if (spec.empty()) return WholeBox(shape);
  const std::vector<std::string_view> words = Split(spec, ' ');
  if (words.size() < 2) {
    Refuse("Need least two elements", spec);
  }
  const std::vector<int64_t> dims = Dims(std::span(words).first(words.size() - 1), spec);
  if (!std::equal(dims.begin(), dims.end(), shape.begin(), shape.end())) {
    throw OpError(Code::kInvalidArgument,
                  "tensor_name = " + tensor + "; shape in shape_and_slice spec " + ShapeText(dims) +
                      " does not match the shape stored in checkpoint: " + ShapeText(shape));
  }
  std::vector<std::string_view> items = Split(words.back(), ':');
  std::erase(items, std::string_view());
  if (items.size() != dims.size()) {
    Refuse("Expected " + std::to_string(dims.size()) + " extents, found " +
               std::to_string(items.size()),
           spec, out_of_bounds);
  }
  Box box;
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    box.push_back(ParseExtent(items[axis], dims[axis], spec, out_of_bounds));
  }
  return box;
}

}  // namespace tensorbundle::op
