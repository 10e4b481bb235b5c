// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/variant_tensor.h"

#include <cstring>
#include <memory>

#include "tensorbundle/base/coding.h"

namespace tensorbundle::op {
namespace {

constexpr TypeNumber kString = 7;
constexpr TypeNumber kVariant = 21;

void PutField(char tag, const std::string& value, std::string* message) {
  *message += tag;
  PutVarint64(value.size(), message);
  *message += value;
}

// A TensorProto,
// https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/tensor.proto.
std::string SerializeTensor(std::span<const int64_t> dims, std::span<const std::string> elements) {
  std::string shape;
  for (const int64_t dim : dims) {
    std::string message = "\x08";  // size
    PutVarint64(static_cast<uint64_t>(dim), &message);
    PutField('\x12', message, &shape);  // dim
  }
  std::string tensor = "\x08\x15";   // dtype: DT_VARIANT
  PutField('\x12', shape, &tensor);  // tensor_shape
  for (const std::string& element : elements) PutField('\x7a', element, &tensor);  // variant_val
  return tensor;
}

struct DeleteHandle {
  void operator()(TFE_TensorHandle* handle) const { Tf().eager.DeleteTensorHandle(handle); }
};
struct DeleteOp {
  void operator()(TFE_Op* op) const { Tf().eager.DeleteOp(op); }
};
using HandlePtr = std::unique_ptr<TFE_TensorHandle, DeleteHandle>;
using OpPtr = std::unique_ptr<TFE_Op, DeleteOp>;

// The context of the process for this op. Never deleted: threads may use it until the process ends.
TFE_Context* EagerContext() {
  static TFE_Context* const context = [] {
    const StatusPtr status = NewStatus();
    TFE_ContextOptions* options = Tf().eager.NewContextOptions();
    TFE_Context* created = Tf().eager.NewContext(options, status.get());
    Tf().eager.DeleteContextOptions(options);
    CheckStatus(status.get());
    return created;
  }();
  return context;
}

}  // namespace

TensorPtr NewVariantTensor(std::span<const int64_t> dims, std::span<const std::string> elements) {
  const EagerApi& eager = Tf().eager;
  if (!eager.is_complete || Tf().StringCopy == nullptr) {
    throw OpError(Code::kUnimplemented, "this TensorFlow does not export TFE_Execute");
  }
  const std::string text = SerializeTensor(dims, elements);
  const TensorPtr input(eager.AllocateTensor(kString, nullptr, 0, kStringItemSize));
  std::memset(Tf().TensorData(input.get()), 0, kStringItemSize);  // it is not initialized
  Tf().StringCopy(static_cast<TF_TString*>(Tf().TensorData(input.get())), text.data(), text.size());
  const StatusPtr status = NewStatus();
  const HandlePtr argument(eager.NewTensorHandle(input.get(), status.get()));
  CheckStatus(status.get());
  const OpPtr op(eager.NewOp(EagerContext(), "ParseTensor", status.get()));
  CheckStatus(status.get());
  eager.OpAddInput(op.get(), argument.get(), status.get());
  CheckStatus(status.get());
  eager.OpSetAttrType(op.get(), "out_type", kVariant);
  TFE_TensorHandle* result = nullptr;
  int num_results = 1;
  eager.Execute(op.get(), &result, &num_results, status.get());
  const HandlePtr owned(result);
  CheckStatus(status.get());
  TensorPtr tensor(eager.TensorHandleResolve(owned.get(), status.get()));
  CheckStatus(status.get());
  return tensor;
}

}  // namespace tensorbundle::op
