// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/kernel.h"

#include <algorithm>
#include <atomic>
#include <string_view>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/wire.h"

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

void RegisterKernel(const char* name, TF_KernelBuilder* builder) {
  const StatusPtr status = NewStatus();
  Tf().RegisterKernelBuilder(name, builder, status.get());  // takes ownership of the builder
  CheckStatus(status.get());
}

std::string_view TextOf(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Whether a serialized KernelDef is of a CPU kernel whose priority is at least `min_priority`.
bool IsCpuKernel(ByteSpan kernel, int32_t min_priority) {
  constexpr uint32_t kDeviceType = 2;
  constexpr uint32_t kPriority = 6;
  bool is_cpu = false;
  int32_t priority = 0;
  WireReader reader(kernel);
  for (WireField field; reader.Next(&field);) {
    if (field.Is(kDeviceType, WireType::kBytes)) is_cpu = TextOf(field.bytes) == "CPU";
    if (field.Is(kPriority, WireType::kVarint)) AsInt32(field.value, &priority);
  }
  return is_cpu && priority >= min_priority;
}

constexpr int32_t kAboveTensorflow = 1;

std::array<std::atomic<int64_t>, kStockOpNames.size()> num_calls = {-1, -1, -1};

std::atomic<int64_t>& CounterOf(StockOp op) { return num_calls[static_cast<size_t>(op)]; }

}  // namespace

namespace {

// Returns the index of the attribute's value among `words`; 0 if the node does not have it.
int WordOf(const Attributes& attributes, const char* name,
           std::initializer_list<std::string_view> words) {
  if (!attributes.Has(name)) return 0;
  const std::string word = attributes.String(name);
  const auto* found = std::find(words.begin(), words.end(), word);
  if (found != words.end()) return static_cast<int>(found - words.begin());
  std::string list;
  for (const std::string_view each : words) {
    list += (list.empty() ? "'" : ", '") + std::string(each) + "'";
  }
  throw OpError(Code::kInvalidArgument,
                std::string(name) + " must be one of " + list + ", not '" + word + "'");
}

}  // namespace

NodeOptions NodeOptions::Of(const Attributes& attributes) {
  constexpr const char* kThreads = "_tensorbundle_threads";
  NodeOptions options;
  options.map = WordOf(attributes, "_tensorbundle_mode", {"copy", "map"}) == 1;
  options.verify = Verify{WordOf(attributes, "_tensorbundle_verify", {"full", "lazy", "none"})};
  options.zero_fill = WordOf(attributes, "_tensorbundle_fill", {"given", "zero"}) == 1;
  if (attributes.Has(kThreads)) options.threads = attributes.Int(kThreads);
  return options;
}

void RegisterKernel(const char* op, void* (*create)(TF_OpKernelConstruction*),
                    void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  RegisterKernel(op, Tf().NewKernelBuilder(op, "CPU", create, compute, destroy));
}

bool HasKernel(const char* op, int32_t min_priority) {
  constexpr uint32_t kKernel = 1;  // of a KernelList
  const StatusPtr status = NewStatus();
  const std::unique_ptr<TF_Buffer, void (*)(TF_Buffer*)> list(
      Tf().GetRegisteredKernelsForOp(op, status.get()), Tf().DeleteBuffer);
  CheckStatus(status.get());
  WireReader reader(ByteSpan(static_cast<const uint8_t*>(list->data), list->length));
  for (WireField field; reader.Next(&field);) {
    if (field.Is(kKernel, WireType::kBytes) && IsCpuKernel(field.bytes, min_priority)) return true;
  }
  return false;
}

void RegisterOverride(StockOp op, void* (*create)(TF_OpKernelConstruction*),
                      void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  const char* name = kStockOpNames[static_cast<size_t>(op)];
  if (HasKernel(name, kAboveTensorflow)) return;
  TF_KernelBuilder* builder = Tf().NewKernelBuilder(name, "CPU", create, compute, destroy);
  Tf().KernelBuilder_Priority(builder, kAboveTensorflow);
  CounterOf(op) = 0;  // before a thread can run the kernel
  RegisterKernel((std::string("Tensorbundle") + name).c_str(), builder);
}

int64_t NumCalls(StockOp op) { return CounterOf(op).load(); }
void CountCall(StockOp op) { ++CounterOf(op); }

}  // namespace tensorbundle::op
