// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/kernel.h"

#include <atomic>

#include "tensorbundle/base/checked.h"

namespace tensorbundle::op {
namespace {

// TensorShape::MaxDimensions().
constexpr size_t kMaxRank = 254;

}  // namespace

void CheckStatus(const TF_Status* status) {
  const int code = Tf().GetCode(status);
  if (code != static_cast<int>(Code::kOk)) throw OpError(Code{code}, Tf().Message(status));
}

StatusPtr StatusOf(const Failure& failure) {
  StatusPtr status = NewStatus();
  Tf().SetStatus(status.get(), static_cast<int>(failure.code), failure.message.c_str());
  return status;
}

std::vector<int64_t> DimsOf(const TF_Tensor* tensor) {
  std::vector<int64_t> dims;
  for (int axis = 0; axis < Tf().NumDims(tensor); ++axis) dims.push_back(Tf().Dim(tensor, axis));
  return dims;
}

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t dim : shape) {
    if (text.size() > 1) text += ",";
    text += std::to_string(dim);
  }
  return text + "]";
}

Attributes::Size Attributes::SizeOf(const char* name) const {
  const StatusPtr status = NewStatus();
  int32_t items = 0;
  int32_t bytes = 0;
  Tf().OpKernelConstruction_GetAttrSize(node_, name, &items, &bytes, status.get());
  CheckStatus(status.get());
  return {items, bytes};
}

size_t Attributes::Require(int32_t size, const char* name, const char* kind) {
  if (size >= 0) return static_cast<size_t>(size);
  throw OpError(Code::kInvalidArgument,
                std::string("attribute ") + name + " is not " + kind + ", as the op expects");
}

std::string Attributes::String(const char* name) const {
  std::string value(Require(SizeOf(name).bytes, name, "a string"), '\0');
  const StatusPtr status = NewStatus();
  Tf().OpKernelConstruction_GetAttrString(node_, name, value.data(), value.size(), status.get());
  CheckStatus(status.get());
  return value;
}

std::string Attributes::Path(const char* name) const {
  std::string path = String(name);
  if (path.find('\0') == std::string::npos) return path;
  throw OpError(Code::kInvalidArgument,
                std::string("attribute ") + name + " is a path with a NUL byte: '" + path + "'");
}

std::vector<std::string> Attributes::Strings(const char* name) const {
  const Size size = SizeOf(name);
  const size_t count = Require(size.items, name, "a list");
  // An empty list has no size in bytes.
  std::string storage(count == 0 ? 0 : Require(size.bytes, name, "a list of strings"), '\0');
  std::vector<char*> begins(count);
  std::vector<size_t> sizes(count);
  const StatusPtr status = NewStatus();
  Tf().OpKernelConstruction_GetAttrStringList(node_, name, begins.data(), sizes.data(),
                                              static_cast<int>(count), storage.data(),
                                              storage.size(), status.get());
  CheckStatus(status.get());
  std::vector<std::string> values;
  for (size_t i = 0; i < count; ++i) values.emplace_back(begins[i], sizes[i]);
  return values;
}

int64_t Attributes::Int(const char* name) const {
  const StatusPtr status = NewStatus();
  int64_t value = 0;
  Tf().OpKernelConstruction_GetAttrInt64(node_, name, &value, status.get());
  CheckStatus(status.get());
  return value;
}

std::vector<int64_t> Attributes::Ints(const char* name) const {
  std::vector<int64_t> values(Require(SizeOf(name).items, name, "a list"));
  const StatusPtr status = NewStatus();
  Tf().OpKernelConstruction_GetAttrInt64List(node_, name, values.data(),
                                             static_cast<int>(values.size()), status.get());
  CheckStatus(status.get());
  return values;
}

TypeNumber Attributes::Type(const char* name) const {
  const StatusPtr status = NewStatus();
  TypeNumber value = 0;
  Tf().OpKernelConstruction_GetAttrType(node_, name, &value, status.get());
  CheckStatus(status.get());
  return value;
}

bool Attributes::Has(const char* name) const {
  const StatusPtr status = NewStatus();
  return Tf().OpKernelConstruction_HasAttr(node_, name, status.get());
}

std::vector<std::string> Run::InputStrings(int index) const {
  if (Tf().StringGetDataPointer == nullptr || Tf().StringGetSize == nullptr) {
    throw OpError(Code::kUnimplemented, "this TensorFlow does not export TF_StringGetDataPointer");
  }
  const TensorPtr tensor = Input(index);
  const ByteSpan items = BytesOf(tensor.get());
  std::vector<std::string> texts;
  for (size_t at = 0; at + kStringItemSize <= items.size(); at += kStringItemSize) {
    const auto* item = reinterpret_cast<const TF_TString*>(items.data() + at);
    texts.emplace_back(Tf().StringGetDataPointer(item), Tf().StringGetSize(item));
  }
  return texts;
}

TensorPtr Run::Input(int index) const {
  const StatusPtr status = NewStatus();
  TF_Tensor* tensor = nullptr;
  Tf().GetInput(context_, index, &tensor, status.get());
  TensorPtr owned(tensor);
  CheckStatus(status.get());
  return owned;
}

namespace {

void CheckAllocatable(std::span<const int64_t> dims) {
  if (dims.size() <= kMaxRank && CheckedVolume(dims)) return;
  throw OpError(Code::kInvalidArgument, "no tensor can have the shape " + ShapeText(dims));
}

}  // namespace

TensorPtr Run::Allocate(int index, TypeNumber type, std::span<const int64_t> dims) const {
  CheckAllocatable(dims);
  const StatusPtr status = NewStatus();
  // TensorFlow ignores the size argument and computes it from the shape.
  TensorPtr owned(Tf().AllocateOutput(context_, index, type, dims.data(),
                                      static_cast<int>(dims.size()), 0, status.get()));
  CheckStatus(status.get());
  return owned;
}

TensorPtr Run::ForwardOrAllocate(int input, int index, std::span<const int64_t> dims,
                                 bool* forwarded) const {
  CheckAllocatable(dims);
  const StatusPtr status = NewStatus();
  int forwarded_input = -1;
  TensorPtr owned(Tf().ForwardInputOrAllocateOutput(context_, &input, 1, index, dims.data(),
                                                    static_cast<int>(dims.size()), &forwarded_input,
                                                    status.get()));
  CheckStatus(status.get());
  *forwarded = forwarded_input == input;
  return owned;
}

void Run::SetOutput(int index, const TF_Tensor* tensor) const {
  const StatusPtr status = NewStatus();
  Tf().SetOutput(context_, index, tensor, status.get());
  CheckStatus(status.get());
}

namespace {

void SetUnknownShapes(TF_ShapeInferenceContext* context, TF_Status* status) {
  Tf().ShapeInferenceContextSetUnknownShape(context, status);
}

void SetScalarShape(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeHandle* scalar = Tf().ShapeInferenceContextScalar(context);
  Tf().ShapeInferenceContextSetOutput(context, 0, scalar, status);
  Tf().DeleteShapeHandle(scalar);
}

}  // namespace

void RegisterOp(const OpSpec& spec) {
  TF_OpDefinitionBuilder* builder = Tf().NewOpDefinitionBuilder(spec.name);
  for (const char* attribute : spec.attributes) Tf().OpDefinitionBuilderAddAttr(builder, attribute);
  for (const char* input : spec.inputs) Tf().OpDefinitionBuilderAddInput(builder, input);
  for (const char* output : spec.outputs) Tf().OpDefinitionBuilderAddOutput(builder, output);
  Tf().OpDefinitionBuilderSetIsStateful(builder, true);
  Tf().OpDefinitionBuilderSetShapeInferenceFunction(
      builder, spec.shapes == OutputShapes::kScalar ? &SetScalarShape : &SetUnknownShapes);
  const StatusPtr status = NewStatus();
  Tf().RegisterOpDefinition(builder, status.get());  // takes ownership of the builder
  CheckStatus(status.get());
}

namespace {

std::atomic<int64_t> num_calls[kNumStockOps];

}  // namespace

void CountCall(StockOp op) { ++num_calls[static_cast<int>(op)]; }
int64_t NumCalls(StockOp op) { return num_calls[static_cast<int>(op)].load(); }

void RegisterOverride(const char* op, void* (*create)(TF_OpKernelConstruction*),
                      void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  constexpr int32_t kAboveTensorflow = 1;  // TensorFlow's own kernels have priority 0
  TF_KernelBuilder* builder = Tf().NewKernelBuilder(op, "CPU", create, compute, destroy);
  Tf().KernelBuilder_Priority(builder, kAboveTensorflow);
  const StatusPtr status = NewStatus();
  Tf().RegisterKernelBuilder((std::string("Tensorbundle") + op).c_str(), builder, status.get());
  CheckStatus(status.get());
}

void RegisterKernel(const char* op, void* (*create)(TF_OpKernelConstruction*),
                    void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  TF_KernelBuilder* builder = Tf().NewKernelBuilder(op, "CPU", create, compute, destroy);
  const StatusPtr status = NewStatus();
  Tf().RegisterKernelBuilder(op, builder, status.get());  // takes ownership of the builder
  CheckStatus(status.get());
}

}  // namespace tensorbundle::op
