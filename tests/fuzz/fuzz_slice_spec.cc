// SPDX-License-Identifier: Apache-2.0
// The bytes are a shape and the attributes of a node: a `shape_and_slice` specification, and the
// options of a restore. A specification that is written from a box must give the box; any other
// gives a box inside the shape, or an error. TensorFlow is replaced by functions that return the
// bytes.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "fuzz_input.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/slice_spec.h"

struct TF_Status {
  int code = 0;
  std::string message;
};

struct TF_OpKernelConstruction {
  std::string value;   // of every attribute of strings
  int64_t number = 0;  // of every attribute of integers
  bool is_list = false;
};

namespace tensorbundle::op {
namespace {

void GetSize(TF_OpKernelConstruction* node, const char*, int32_t* items, int32_t* bytes,
             TF_Status*) {
  *items = node->is_list ? static_cast<int32_t>(node->value.size()) : -1;
  *bytes = static_cast<int32_t>(node->value.size());
}

void GetString(TF_OpKernelConstruction* node, const char*, char* out, size_t capacity, TF_Status*) {
  std::memcpy(out, node->value.data(), std::min(capacity, node->value.size()));
}

// A list of strings of one byte each.
void GetStrings(TF_OpKernelConstruction* node, const char*, char** out, size_t* sizes, int capacity,
                void* storage, size_t storage_size, TF_Status*) {
  std::memcpy(storage, node->value.data(), std::min(storage_size, node->value.size()));
  for (int i = 0; i < capacity; ++i) {
    out[i] = static_cast<char*>(storage) + i;
    sizes[i] = 1;
  }
}

ApiTable MakeTable() {
  ApiTable table;
  table.NewStatus = [] { return new TF_Status; };
  table.DeleteStatus = [](TF_Status* status) { delete status; };
  table.GetCode = [](const TF_Status* status) { return status->code; };
  table.Message = [](const TF_Status* status) { return status->message.c_str(); };
  table.OpKernelConstruction_HasAttr = [](TF_OpKernelConstruction* node, const char*, TF_Status*) {
    return node->number % 2 == 0;
  };
  table.OpKernelConstruction_GetAttrSize = &GetSize;
  table.OpKernelConstruction_GetAttrString = &GetString;
  table.OpKernelConstruction_GetAttrStringList = &GetStrings;
  table.OpKernelConstruction_GetAttrInt64 = [](TF_OpKernelConstruction* node, const char*,
                                               int64_t* out, TF_Status* status) {
    *out = node->number;
    status->code = node->number == 7 ? static_cast<int>(Code::kNotFound) : 0;
  };
  return table;
}

}  // namespace

const ApiTable& Tf() {
  static const ApiTable table = MakeTable();
  return table;
}

}  // namespace tensorbundle::op

namespace tensorbundle::fuzz {
namespace {

// Writes a box as TensorFlow does, with '-' for whole axes if `short_form`.
std::string SpecOf(const std::vector<int64_t>& shape, const Box& box, bool short_form) {
  std::string spec;
  for (const int64_t dim : shape) spec += std::to_string(dim) + " ";
  for (size_t axis = 0; axis < box.size(); ++axis) {
    if (axis > 0) spec += ":";
    const Extent& extent = box[axis];
    if (short_form && extent.start == 0 && extent.length == shape[axis]) {
      spec += "-";
    } else {
      spec += std::to_string(extent.start) + "," + std::to_string(extent.length);
    }
  }
  return spec;
}

void CheckSpec(Input* input) {
  std::vector<int64_t> shape;
  Box box;
  const int64_t rank = 1 + input->Below(4);
  for (int64_t axis = 0; axis < rank; ++axis) {
    int64_t dim = 1 + input->Below(255);
    if (dim == 255) dim = std::numeric_limits<int64_t>::max() - input->Below(255);
    const int64_t start = input->Below(dim);
    shape.push_back(dim);
    box.push_back({start, 1 + input->Below(dim - start)});
  }
  Require(op::ParseSliceSpec(SpecOf(shape, box, true), "t", shape) == box);
  Require(op::ParseSliceSpec(SpecOf(shape, box, false), "t", shape) == box);
  try {
    // The text follows the dimensions, without which every text would be refused.
    const std::string own = SpecOf(shape, {}, true);
    const std::string spec = (input->Byte() % 2 == 0 ? own : "") + std::string(input->String());
    const Box parsed = op::ParseSliceSpec(spec, "t", shape);
    Require(parsed.size() == shape.size());
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      Require(parsed[axis].start >= 0 && parsed[axis].length > 0 &&
              parsed[axis].length <= shape[axis] - parsed[axis].start);
    }
  } catch (const op::OpError&) {
  }
}

// Runs a function that may throw OpError. The message of the status must be text for Python.
template <typename Body>
void RunChecked(const Body& body) {
  try {
    body();
  } catch (...) {
    const op::Failure failure = op::CurrentFailure();
    Require(failure.code != op::Code::kOk && failure.code != op::Code::kInternal);
    Require(failure.message.find('\0') == std::string::npos);
    Require(op::CurrentStockFailure().message.find('\0') == std::string::npos);
  }
}

void CheckAttributes(Input* input) {
  constexpr const char* kWords[] = {"copy", "map", "full", "lazy", "none", "given", "zero"};
  TF_OpKernelConstruction node;
  const int64_t word = input->Below(16);
  node.is_list = input->Byte() % 2 == 0;
  node.number = input->Byte() % 2 == 0 ? input->Byte() : input->Int64();
  node.value = word < 7 ? kWords[word] : std::string(input->Rest());
  const op::Attributes attributes(&node);
  RunChecked([&] { Require(attributes.String("a") == node.value); });
  RunChecked([&] { Require(attributes.Path("a") == node.value); });
  RunChecked([&] { Require(attributes.Int("a") == node.number); });
  RunChecked([&] {
    std::string joined;
    for (const std::string& item : attributes.Strings("a")) joined += item;
    Require(joined == node.value);
  });
  RunChecked([&] { op::NodeOptions::Of(attributes); });
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tensorbundle::fuzz::Input input(data, size);
  tensorbundle::fuzz::CheckSpec(&input);
  tensorbundle::fuzz::CheckAttributes(&input);
  return 0;
}
