// SPDX-License-Identifier: Apache-2.0
// A stand-in for the part of TensorFlow's C API that the op library uses (tensorflow_op/tf_api.h):
// its kernels run without TensorFlow. Tensors are reference-counted buffers. Strings have a layout
// of their own, of TensorFlow's size.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorflow_op/tf_api.h"

// Owns memory, and releases it by the function that TF_NewTensor() got.
struct FakeBuffer {
  void* data = nullptr;
  size_t size = 0;
  bool has_strings = false;
  void (*deallocator)(void*, size_t, void*) = nullptr;
  void* argument = nullptr;

  FakeBuffer() = default;
  FakeBuffer(const FakeBuffer&) = delete;
  FakeBuffer& operator=(const FakeBuffer&) = delete;
  ~FakeBuffer();
};

struct TF_Tensor {
  tensorbundle::op::TypeNumber type = 0;
  std::vector<int64_t> dims;
  std::shared_ptr<FakeBuffer> buffer;
};

namespace tensorbundle::fake {

constexpr op::TypeNumber kFloat = 1;
constexpr op::TypeNumber kInt32 = 3;
constexpr op::TypeNumber kString = 7;
constexpr op::TypeNumber kInt64 = 9;

TF_Tensor NewTensor(op::TypeNumber type, std::vector<int64_t> dims);
TF_Tensor StringsTensor(const std::vector<std::string>& strings);
TF_Tensor ScalarString(const std::string& text);
TF_Tensor Int64Tensor(const std::vector<int64_t>& values);
std::vector<std::string> StringsOf(const TF_Tensor& tensor);

template <typename T>
const T* Data(const TF_Tensor& tensor) {
  return static_cast<const T*>(tensor.buffer->data);
}

struct Type {
  op::TypeNumber number;
};
using Attribute =
    std::variant<std::string, std::vector<std::string>, int64_t, std::vector<int64_t>, Type>;
using Node = std::map<std::string, Attribute>;

struct Result {
  op::Code code = op::Code::kOk;
  std::string message;
  std::vector<TF_Tensor> outputs;
};

// An instance of a registered kernel. Threads: Run() is thread-safe, as in TensorFlow.
class Kernel {
 public:
  // Throws std::runtime_error if no kernel is registered for the op, or it refuses the node.
  Kernel(const std::string& op, Node node);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  Result Run(std::vector<TF_Tensor> inputs, std::vector<op::TypeNumber> output_types) const;

 private:
  const std::string op_;
  void* kernel_ = nullptr;
};

}  // namespace tensorbundle::fake
