// SPDX-License-Identifier: Apache-2.0
// Kernels as C++ classes: what a kernel sees of TensorFlow, owned and checked. Exceptions stop
// here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensorbundle/base/bytes.h"
#include "tensorbundle/base/parallel.h"
#include "tensorflow_op/status.h"
#include "tensorflow_op/tf_api.h"

namespace tensorbundle::op {

struct DeleteStatus {
  void operator()(TF_Status* status) const { Tf().DeleteStatus(status); }
};
struct DeleteTensor {
  void operator()(TF_Tensor* tensor) const { Tf().DeleteTensor(tensor); }
};
using StatusPtr = std::unique_ptr<TF_Status, DeleteStatus>;
using TensorPtr = std::unique_ptr<TF_Tensor, DeleteTensor>;

inline StatusPtr NewStatus() { return StatusPtr(Tf().NewStatus()); }

// Throws OpError when the status is not OK.
void CheckStatus(const TF_Status* status);

// The exception being handled, as a status.
StatusPtr CurrentStatus();

std::vector<int64_t> DimsOf(const TF_Tensor* tensor);
inline ByteSpan BytesOf(const TF_Tensor* tensor) {
  return {static_cast<const uint8_t*>(Tf().TensorData(tensor)), Tf().TensorByteSize(tensor)};
}
inline MutableByteSpan MutableBytesOf(TF_Tensor* tensor) {
  return {static_cast<uint8_t*>(Tf().TensorData(tensor)), Tf().TensorByteSize(tensor)};
}

// The attributes of the node that a kernel is made for. Lives for the kernel's construction.
class Attributes {
 public:
  explicit Attributes(TF_OpKernelConstruction* node) : node_(node) {}

  std::string String(const char* name) const;
  std::vector<std::string> Strings(const char* name) const;
  // A string that names a file. Throws OpError (INVALID_ARGUMENT) where it holds a NUL byte: the
  // system would take what is in front of it for the whole path.
  std::string Path(const char* name) const;
  int64_t Int(const char* name) const;
  std::vector<int64_t> Ints(const char* name) const;
  TypeNumber Type(const char* name) const;

 private:
  // -1 where the attribute has no such size.
  struct Size {
    int32_t items;  // of a list
    int32_t bytes;  // of a string, or of all strings of a list
  };
  Size SizeOf(const char* name) const;
  // Throws OpError (INVALID_ARGUMENT) where the attribute is not of the kind that has this size.
  static size_t Require(int32_t size, const char* name, const char* kind);

  TF_OpKernelConstruction* node_;
};

// One run of a kernel: its inputs and outputs.
class Run {
 public:
  explicit Run(TF_OpKernelContext* context) : context_(context) {}

  int num_inputs() const { return Tf().NumInputs(context_); }
  TensorPtr Input(int index) const;

  // Memory that TensorFlow owns and passes on as output `index`. Throws OpError (INVALID_ARGUMENT)
  // for a shape that no tensor can have: TensorFlow would end the process.
  TensorPtr Allocate(int index, TypeNumber type, std::span<const int64_t> dims) const;

  // The same, and throws as that; an input's memory is taken over where nobody else holds it.
  // `forwarded` says whether.
  TensorPtr ForwardOrAllocate(int input, int index, std::span<const int64_t> dims,
                              bool* forwarded) const;

  void SetOutput(int index, const TF_Tensor* tensor) const;

 private:
  TF_OpKernelContext* context_;
};

// The three functions that TensorFlow calls for a class `Kernel` with a constructor from Attributes
// and `void Compute(const Run&) const`, which may be called from several threads at once.
template <typename Kernel>
struct KernelFunctions {
  static void* Create(TF_OpKernelConstruction* node) {
    try {
      return new Kernel(Attributes(node));
    } catch (...) {
      Tf().OpKernelConstruction_Failure(node, CurrentStatus().get());
      return nullptr;
    }
  }

  static void Compute(void* kernel, TF_OpKernelContext* context) {
    try {
      static_cast<const Kernel*>(kernel)->Compute(Run(context));
    } catch (...) {
      Tf().OpKernelContext_Failure(context, CurrentStatus().get());
    }
  }

  static void Destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }
};

// The ops, one function each, and what they share in being registered.

// What a shape function can say of an op's outputs: the C API lets it see no attribute but types.
enum class OutputShapes { kUnknown, kScalar };

struct OpSpec {
  const char* name;  // versioned: attributes never change their meaning under one name
  std::initializer_list<const char*> attributes;
  std::initializer_list<const char*> inputs;
  std::initializer_list<const char*> outputs;
  OutputShapes shapes;
};

// Registers a stateful op: a stateless one without inputs would be evaluated, and its tensor
// copied, while the graph is optimized. Throws OpError.
void RegisterOp(const OpSpec& spec);

void RegisterKernel(const char* op, void* (*create)(TF_OpKernelConstruction*),
                    void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*));

template <typename Kernel>
void RegisterOpAndKernel(const OpSpec& spec) {
  using Functions = KernelFunctions<Kernel>;
  RegisterOp(spec);
  RegisterKernel(spec.name, &Functions::Create, &Functions::Compute, &Functions::Destroy);
}

void RegisterReadOp();
void RegisterMapOp();
void RegisterVerifyOp();
void RegisterMissingOp();
void RegisterRemapOp();

// How many threads an op works with.

// Fewer bytes than this per thread are not worth starting it.
inline constexpr uint64_t kMinBytesPerThread = uint64_t{1} << 20;

// For work on that many bytes. `wanted` is an op's attribute; 0: the processors that the process
// may run on, found out once.
inline int ThreadsFor(int64_t wanted, uint64_t num_bytes) {
  static const int processors = AvailableProcessors();
  const int most = wanted > 0 ? static_cast<int>(std::min<int64_t>(wanted, 1024)) : processors;
  return static_cast<int>(std::clamp<uint64_t>(num_bytes / kMinBytesPerThread, 1, most));
}

}  // namespace tensorbundle::op
