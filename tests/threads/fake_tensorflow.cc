// SPDX-License-Identifier: Apache-2.0
#include "fake_tensorflow.h"

#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>

#include "tensorflow_op/kernel.h"

struct TF_Status {
  int code = 0;
  std::string message;
};

// An element of a tensor of strings. All zeros is the empty string.
struct TF_TString {
  char* data;
  size_t size;
  size_t unused;
};
static_assert(sizeof(TF_TString) == tensorbundle::op::kStringItemSize);

struct TF_KernelBuilder {
  std::string op;
  void* (*create)(TF_OpKernelConstruction*);
  void (*compute)(void*, TF_OpKernelContext*);
  void (*destroy)(void*);
};

struct TF_OpDefinitionBuilder {};
struct TF_ShapeHandle {};

struct TF_OpKernelConstruction {
  tensorbundle::fake::Node node;
  TF_Status status;
};

struct TF_OpKernelContext {
  std::vector<TF_Tensor> inputs;
  std::vector<tensorbundle::op::TypeNumber> types;  // of the outputs
  std::vector<std::optional<TF_Tensor>> outputs;
  TF_Status status;
};

FakeBuffer::~FakeBuffer() {
  if (has_strings) {
    auto* const items = static_cast<TF_TString*>(data);
    for (size_t i = 0; i < size / sizeof(TF_TString); ++i) std::free(items[i].data);
  }
  if (deallocator != nullptr) {
    deallocator(data, size, argument);
  } else {
    std::free(data);
  }
}

namespace tensorbundle::fake {
namespace {

// Written by the registration, before any thread starts.
std::map<std::string, TF_KernelBuilder>& Registered() {
  static std::map<std::string, TF_KernelBuilder> kernels;
  return kernels;
}

size_t ItemSize(op::TypeNumber type) {
  switch (type) {
    case kFloat:
    case kInt32:
      return 4;
    case kInt64:
      return 8;
    case kString:
      return sizeof(TF_TString);
    default:
      return 1;  // bool
  }
}

void Copy(TF_TString* item, const char* bytes, size_t size) {
  std::free(item->data);
  item->data = static_cast<char*>(std::malloc(size + 1));
  item->size = size;
  if (size > 0) std::memcpy(item->data, bytes, size);
}

const Attribute& Find(const TF_OpKernelConstruction* node, const char* name) {
  return node->node.at(name);
}

void GetSize(TF_OpKernelConstruction* node, const char* name, int32_t* items, int32_t* bytes,
             TF_Status* status) {
  *items = *bytes = -1;
  if (!node->node.contains(name)) {
    *status = {static_cast<int>(op::Code::kNotFound), std::string("no attribute ") + name};
    return;
  }
  const Attribute& attribute = Find(node, name);
  if (const auto* text = std::get_if<std::string>(&attribute)) {
    *bytes = static_cast<int32_t>(text->size());
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&attribute)) {
    *items = static_cast<int32_t>(texts->size());
    *bytes = 0;
    for (const std::string& each : *texts) *bytes += static_cast<int32_t>(each.size());
  } else if (const auto* numbers = std::get_if<std::vector<int64_t>>(&attribute)) {
    *items = static_cast<int32_t>(numbers->size());
  }
}

void GetString(TF_OpKernelConstruction* node, const char* name, char* out, size_t capacity,
               TF_Status*) {
  const auto& text = std::get<std::string>(Find(node, name));
  std::memcpy(out, text.data(), std::min(capacity, text.size()));
}

void GetStrings(TF_OpKernelConstruction* node, const char* name, char** out, size_t* sizes,
                int capacity, void* storage, size_t, TF_Status*) {
  const auto& texts = std::get<std::vector<std::string>>(Find(node, name));
  char* at = static_cast<char*>(storage);
  for (size_t i = 0; i < std::min(texts.size(), static_cast<size_t>(capacity)); ++i) {
    std::memcpy(at, texts[i].data(), texts[i].size());
    out[i] = at;
    sizes[i] = texts[i].size();
    at += sizes[i];
  }
}

TF_Tensor* Allocate(TF_OpKernelContext* context, int index, int type, const int64_t* dims, int rank,
                    size_t, TF_Status*) {
  auto& output = context->outputs.at(static_cast<size_t>(index));
  output = NewTensor(type, {dims, dims + rank});
  return new TF_Tensor(*output);
}

TF_Tensor* ForwardOrAllocate(TF_OpKernelContext* context, const int* candidates, int, int index,
                             const int64_t* dims, int rank, int* forwarded, TF_Status* status) {
  TF_Tensor& input = context->inputs.at(static_cast<size_t>(candidates[0]));
  if (input.buffer.use_count() == 1) {
    *forwarded = candidates[0];
    context->outputs.at(static_cast<size_t>(index)) = input;
    return new TF_Tensor(input);
  }
  return Allocate(context, index, input.type, dims, rank, 0, status);
}

TF_Tensor* Wrap(int type, const int64_t* dims, int rank, void* data, size_t size,
                void (*deallocator)(void*, size_t, void*), void* argument) {
  TF_Tensor tensor{type, {dims, dims + rank}, std::make_shared<FakeBuffer>()};
  tensor.buffer->data = data;
  tensor.buffer->size = size;
  tensor.buffer->deallocator = deallocator;
  tensor.buffer->argument = argument;
  return new TF_Tensor(std::move(tensor));
}

TF_Buffer* NoKernels(const char*, TF_Status*) { return new TF_Buffer{nullptr, 0, nullptr}; }

op::ApiTable MakeTable() {
  op::ApiTable table;
  table.NewStatus = [] { return new TF_Status; };
  table.DeleteStatus = [](TF_Status* status) { delete status; };
  table.SetStatus = [](TF_Status* status, int code, const char* message) {
    *status = {code, message};
  };
  table.GetCode = [](const TF_Status* status) { return status->code; };
  table.Message = [](const TF_Status* status) { return status->message.c_str(); };
  table.NewTensor = &Wrap;
  table.DeleteTensor = [](TF_Tensor* tensor) { delete tensor; };
  table.TensorType = [](const TF_Tensor* tensor) { return tensor->type; };
  table.NumDims = [](const TF_Tensor* tensor) { return static_cast<int>(tensor->dims.size()); };
  table.Dim = [](const TF_Tensor* tensor, int axis) {
    return tensor->dims.at(static_cast<size_t>(axis));
  };
  table.TensorByteSize = [](const TF_Tensor* tensor) { return tensor->buffer->size; };
  table.TensorData = [](const TF_Tensor* tensor) { return tensor->buffer->data; };
  table.NewOpDefinitionBuilder = [](const char*) { return new TF_OpDefinitionBuilder; };
  table.RegisterOpDefinition = [](TF_OpDefinitionBuilder* builder, TF_Status*) { delete builder; };
  table.OpDefinitionBuilderAddAttr = [](TF_OpDefinitionBuilder*, const char*) {};
  table.OpDefinitionBuilderAddInput = [](TF_OpDefinitionBuilder*, const char*) {};
  table.OpDefinitionBuilderAddOutput = [](TF_OpDefinitionBuilder*, const char*) {};
  table.OpDefinitionBuilderSetIsStateful = [](TF_OpDefinitionBuilder*, bool) {};
  table.OpDefinitionBuilderSetShapeInferenceFunction =
      [](TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*)) {};
  table.NewKernelBuilder = [](const char* op, const char*, auto* create, auto* compute,
                              auto* destroy) {
    return new TF_KernelBuilder{op, create, compute, destroy};
  };
  table.KernelBuilder_Priority = [](TF_KernelBuilder*, int32_t) {};
  table.RegisterKernelBuilder = [](const char*, TF_KernelBuilder* builder, TF_Status*) {
    Registered().insert_or_assign(builder->op, *builder);
    delete builder;
  };
  table.OpKernelConstruction_Failure = [](TF_OpKernelConstruction* node, TF_Status* status) {
    node->status = *status;
  };
  table.OpKernelConstruction_HasAttr = [](TF_OpKernelConstruction* node, const char* name,
                                          TF_Status*) { return node->node.contains(name); };
  table.OpKernelConstruction_GetAttrSize = &GetSize;
  table.OpKernelConstruction_GetAttrString = &GetString;
  table.OpKernelConstruction_GetAttrStringList = &GetStrings;
  table.OpKernelConstruction_GetAttrType = [](TF_OpKernelConstruction* node, const char* name,
                                              int* out, TF_Status*) {
    *out = std::get<Type>(Find(node, name)).number;
  };
  table.OpKernelConstruction_GetAttrInt64 = [](TF_OpKernelConstruction* node, const char* name,
                                               int64_t* out, TF_Status*) {
    *out = std::get<int64_t>(Find(node, name));
  };
  table.OpKernelConstruction_GetAttrInt64List = [](TF_OpKernelConstruction* node, const char* name,
                                                   int64_t* out, int, TF_Status*) {
    const auto& numbers = std::get<std::vector<int64_t>>(Find(node, name));
    std::copy(numbers.begin(), numbers.end(), out);
  };
  table.OpKernelContext_Failure = [](TF_OpKernelContext* context, TF_Status* status) {
    context->status = *status;
  };
  table.StepId = [](TF_OpKernelContext*) { return int64_t{1}; };
  table.NumInputs = [](TF_OpKernelContext* context) {
    return static_cast<int>(context->inputs.size());
  };
  table.NumOutputs = [](TF_OpKernelContext* context) {
    return static_cast<int>(context->outputs.size());
  };
  table.ExpectedOutputDataType = [](TF_OpKernelContext* context, int index) {
    return context->types.at(static_cast<size_t>(index));
  };
  table.GetInput = [](TF_OpKernelContext* context, int index, TF_Tensor** tensor, TF_Status*) {
    *tensor = new TF_Tensor(context->inputs.at(static_cast<size_t>(index)));
  };
  table.SetOutput = [](TF_OpKernelContext* context, int index, const TF_Tensor* tensor,
                       TF_Status*) { context->outputs.at(static_cast<size_t>(index)) = *tensor; };
  table.AllocateOutput = &Allocate;
  table.ForwardInputOrAllocateOutput = &ForwardOrAllocate;
  table.StringCopy = &Copy;
  table.StringGetDataPointer = [](const TF_TString* item) -> const char* {
    return item->data == nullptr ? "" : item->data;
  };
  table.StringGetSize = [](const TF_TString* item) { return item->size; };
  table.GetRegisteredKernelsForOp = &NoKernels;
  table.DeleteBuffer = [](TF_Buffer* buffer) { delete buffer; };
  return table;
}

}  // namespace

TF_Tensor NewTensor(op::TypeNumber type, std::vector<int64_t> dims) {
  size_t size = ItemSize(type);
  for (const int64_t dim : dims) size *= static_cast<size_t>(dim);
  TF_Tensor tensor{type, std::move(dims), std::make_shared<FakeBuffer>()};
  FakeBuffer& buffer = *tensor.buffer;
  buffer.has_strings = type == kString;
  buffer.data = buffer.has_strings ? std::calloc(1, size + 1) : std::malloc(size + 1);
  buffer.size = size;
  return tensor;
}

TF_Tensor StringsTensor(const std::vector<std::string>& strings) {
  TF_Tensor tensor = NewTensor(kString, {static_cast<int64_t>(strings.size())});
  auto* const items = static_cast<TF_TString*>(tensor.buffer->data);
  for (size_t i = 0; i < strings.size(); ++i) {
    Copy(&items[i], strings[i].data(), strings[i].size());
  }
  return tensor;
}

TF_Tensor ScalarString(const std::string& text) {
  TF_Tensor tensor = StringsTensor({text});
  tensor.dims.clear();
  return tensor;
}

TF_Tensor Int64Tensor(const std::vector<int64_t>& values) {
  TF_Tensor tensor = NewTensor(kInt64, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), static_cast<int64_t*>(tensor.buffer->data));
  return tensor;
}

std::vector<std::string> StringsOf(const TF_Tensor& tensor) {
  std::vector<std::string> strings;
  const auto* const items = Data<TF_TString>(tensor);
  for (size_t i = 0; i < tensor.buffer->size / sizeof(TF_TString); ++i) {
    strings.emplace_back(items[i].data == nullptr ? "" : items[i].data, items[i].size);
  }
  return strings;
}

Kernel::Kernel(const std::string& op, Node node) : op_(op) {
  TF_OpKernelConstruction construction{std::move(node), {}};
  kernel_ = Registered().at(op).create(&construction);
  if (kernel_ == nullptr) throw std::runtime_error(op + ": " + construction.status.message);
}

Kernel::~Kernel() { Registered().at(op_).destroy(kernel_); }

Result Kernel::Run(std::vector<TF_Tensor> inputs, std::vector<op::TypeNumber> output_types) const {
  TF_OpKernelContext context{std::move(inputs), std::move(output_types), {}, {}};
  context.outputs.resize(context.types.size());
  Registered().at(op_).compute(kernel_, &context);
  Result result{op::Code{context.status.code}, context.status.message, {}};
  if (result.code != op::Code::kOk) return result;
  for (std::optional<TF_Tensor>& output : context.outputs) {
    if (!output) throw std::runtime_error(op_ + " has not set an output");
    result.outputs.push_back(*std::move(output));
  }
  return result;
}

}  // namespace tensorbundle::fake

namespace tensorbundle::op {

const ApiTable& Tf() {
  static const ApiTable table = fake::MakeTable();
  return table;
}

}  // namespace tensorbundle::op
