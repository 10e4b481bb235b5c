// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/kernel.h"

#include <algorithm>

namespace tensorbundle::op {

void CheckStatus(const TF_Status* status) {
  const int code = Tf().GetCode(status);
  if (code != static_cast<int>(Code::kOk)) throw OpError(Code{code}, Tf().Message(status));
}

StatusPtr CurrentStatus() {
  const Failure failure = CurrentFailure();
  StatusPtr status = NewStatus();
  Tf().SetStatus(status.get(), static_cast<int>(failure.code), failure.message.c_str());
  return status;
}

std::vector<int64_t> DimsOf(const TF_Tensor* tensor) {
  std::vector<int64_t> dims;
  for (int axis = 0; axis < Tf().NumDims(tensor); ++axis) dims.push_back(Tf().Dim(tensor, axis));
  return dims;
}

Attributes::Size Attributes::SizeOf(const char* name) const {
  const StatusPtr status = NewStatus();
  int32_t items = 0;
  int32_t bytes = 0;
  Tf().OpKernelConstruction_GetAttrSize(node_, name, &items, &bytes, status.get());
  CheckStatus(status.get());
  // -1 where an attribute has no such size.
  return {static_cast<size_t>(std::max(0, items)), static_cast<size_t>(std::max(0, bytes))};
}

std::string Attributes::String(const char* name) const {
  std::string value(SizeOf(name).bytes, '\0');
  const StatusPtr status = NewStatus();
  Tf().OpKernelConstruction_GetAttrString(node_, name, value.data(), value.size(), status.get());
  CheckStatus(status.get());
  return value;
}

std::vector<std::string> Attributes::Strings(const char* name) const {
  const Size size = SizeOf(name);
  std::string storage(size.bytes, '\0');
  std::vector<char*> begins(size.items);
  std::vector<size_t> sizes(size.items);
  const StatusPtr status = NewStatus();
  Tf().OpKernelConstruction_GetAttrStringList(node_, name, begins.data(), sizes.data(),
                                              static_cast<int>(size.items), storage.data(),
                                              storage.size(), status.get());
  CheckStatus(status.get());
  std::vector<std::string> values;
  for (size_t i = 0; i < size.items; ++i) values.emplace_back(begins[i], sizes[i]);
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
  std::vector<int64_t> values(SizeOf(name).items);
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

TensorPtr Run::Input(int index) const {
  const StatusPtr status = NewStatus();
  TF_Tensor* tensor = nullptr;
  Tf().GetInput(context_, index, &tensor, status.get());
  TensorPtr owned(tensor);
  CheckStatus(status.get());
  return owned;
}

TensorPtr Run::Allocate(int index, TypeNumber type, std::span<const int64_t> dims) const {
  const StatusPtr status = NewStatus();
  // TensorFlow computes the size itself and ignores the one that it is told.
  TensorPtr owned(Tf().AllocateOutput(context_, index, type, dims.data(),
                                      static_cast<int>(dims.size()), 0, status.get()));
  CheckStatus(status.get());
  return owned;
}

TensorPtr Run::ForwardOrAllocate(int input, int index, std::span<const int64_t> dims,
                                 bool* forwarded) const {
  const StatusPtr status = NewStatus();
  int taken = -1;
  TensorPtr owned(Tf().ForwardInputOrAllocateOutput(context_, &input, 1, index, dims.data(),
                                                    static_cast<int>(dims.size()), &taken,
                                                    status.get()));
  CheckStatus(status.get());
  *forwarded = taken == input;
  return owned;
}

void Run::SetOutput(int index, const TF_Tensor* tensor) const {
  const StatusPtr status = NewStatus();
  Tf().SetOutput(context_, index, tensor, status.get());
  CheckStatus(status.get());
}

}  // namespace tensorbundle::op
