// SPDX-License-Identifier: Apache-2.0
// Kernels as C++ classes: owning, checked wrappers of TensorFlow's C API. KernelFunctions converts
// exceptions to status codes, so no exception reaches TensorFlow.
#pragma once

#include <algorithm>
#include <array>
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

// sizeof(TF_TString), the same in every version of TensorFlow.
inline constexpr size_t kStringItemSize = 24;

struct DeleteStatus {
  void operator()(TF_Status* status) const { Tf().DeleteStatus(status); }
};
struct DeleteTensor {
  void operator()(TF_Tensor* tensor) const { Tf().DeleteTensor(tensor); }
};
using StatusPtr = std::unique_ptr<TF_Status, DeleteStatus>;
using TensorPtr = std::unique_ptr<TF_Tensor, DeleteTensor>;

inline StatusPtr NewStatus() { return StatusPtr(Tf().NewStatus()); }

// Throws: OpError if the status is not OK.
void CheckStatus(const TF_Status* status);

StatusPtr StatusOf(const Failure& failure);

std::vector<int64_t> DimsOf(const TF_Tensor* tensor);
// Formats a shape as TensorFlow does: "[10,10]".
std::string ShapeText(std::span<const int64_t> shape);
inline ByteSpan BytesOf(const TF_Tensor* tensor) {
  return {static_cast<const uint8_t*>(Tf().TensorData(tensor)), Tf().TensorByteSize(tensor)};
}
inline MutableByteSpan MutableBytesOf(TF_Tensor* tensor) {
  return {static_cast<uint8_t*>(Tf().TensorData(tensor)), Tf().TensorByteSize(tensor)};
}

// The attributes of a kernel's node. All functions throw OpError if the attribute is missing or has
// another type.
// Lifetime: valid during the kernel's construction.
class Attributes {
 public:
  explicit Attributes(TF_OpKernelConstruction* node) : node_(node) {}

  std::string String(const char* name) const;
  std::vector<std::string> Strings(const char* name) const;
  // A string that names a file.
  // Throws: OpError (INVALID_ARGUMENT) if it contains a NUL byte: the system would truncate the
  // path there.
  std::string Path(const char* name) const;
  int64_t Int(const char* name) const;
  std::vector<int64_t> Ints(const char* name) const;
  TypeNumber Type(const char* name) const;
  // Whether the node has the attribute, which an op need not declare if it begins with "_".
  bool Has(const char* name) const;

 private:
  // -1 if the attribute has no such size.
  struct Size {
    int32_t items;  // of a list
    int32_t bytes;  // of a string, or of all strings of a list
  };
  Size SizeOf(const char* name) const;
  // Throws: OpError (INVALID_ARGUMENT) if `size` is -1: the attribute is not `kind`.
  static size_t Require(int32_t size, const char* name, const char* kind);

  TF_OpKernelConstruction* node_;
};

// One execution of a kernel: its inputs and outputs.
// Lifetime: valid during Compute().
class Run {
 public:
  explicit Run(TF_OpKernelContext* context) : context_(context) {}

  int num_inputs() const { return Tf().NumInputs(context_); }
  int num_outputs() const { return Tf().NumOutputs(context_); }
  TypeNumber OutputType(int index) const { return Tf().ExpectedOutputDataType(context_, index); }
  TensorPtr Input(int index) const;
  // The elements of an input of strings.
  // Throws: OpError (UNIMPLEMENTED) if this TensorFlow does not export the functions for it.
  std::vector<std::string> InputStrings(int index) const;

  // Allocates output `index`.
  // Throws: OpError (INVALID_ARGUMENT) for a shape that no tensor can have. TensorFlow would abort
  // the process.
  TensorPtr Allocate(int index, TypeNumber type, std::span<const int64_t> dims) const;

  // Reuses the buffer of input `input` for output `index` if there is no other reference to it, and
  // sets `*forwarded`. Otherwise as Allocate().
  TensorPtr ForwardOrAllocate(int input, int index, std::span<const int64_t> dims,
                              bool* forwarded) const;

  void SetOutput(int index, const TF_Tensor* tensor) const;

  // Whether TensorFlow runs the op while it builds or optimizes a graph, to replace the op by its
  // value. If the op fails, TensorFlow keeps it, and reports no error.
  bool IsConstantFolding() const {
    constexpr int64_t kFoldingStep = -1;  // LogMemory::CONSTANT_FOLDING_STEP_ID
    return Tf().StepId(context_) == kFoldingStep;
  }

 private:
  TF_OpKernelContext* context_;
};

// The three functions that TensorFlow calls for a kernel. `current_failure` converts the exception
// that is being handled.
// Requires: `Kernel` has a constructor from Attributes, and a thread-safe
// `void Compute(const Run&) const`.
template <typename Kernel, Failure (*current_failure)()>
struct KernelFunctions {
  static void* Create(TF_OpKernelConstruction* node) {
    try {
      return new Kernel(Attributes(node));
    } catch (...) {
      Tf().OpKernelConstruction_Failure(node, StatusOf(current_failure()).get());
      return nullptr;
    }
  }

  static void Compute(void* kernel, TF_OpKernelContext* context) {
    try {
      static_cast<const Kernel*>(kernel)->Compute(Run(context));
    } catch (...) {
      Tf().OpKernelContext_Failure(context, StatusOf(current_failure()).get());
    }
  }

  static void Destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }
};

// Registration.

// The shape function of an op. In the C API it can read no attributes except types.
enum class OutputShapes { kUnknown, kScalar };

struct OpSpec {
  const char* name;  // versioned: the meaning of an attribute never changes under one name
  std::initializer_list<const char*> attributes;
  std::initializer_list<const char*> inputs;
  std::initializer_list<const char*> outputs;
  OutputShapes shapes;
};

// Registers a stateful op. Grappler would evaluate a stateless op without inputs at optimization
// time and copy its tensor to the graph.
// Throws: OpError.
void RegisterOp(const OpSpec& spec);

void RegisterKernel(const char* op, void* (*create)(TF_OpKernelConstruction*),
                    void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*));

// Whether TensorFlow has a CPU kernel for the op, from any library, whose priority is at least
// `min_priority`. TensorFlow's own kernels have priority 0.
// Throws: OpError.
bool HasKernel(const char* op, int32_t min_priority);

// The ops of TensorFlow for which this library has kernels.
enum class StockOp { kRestore, kVocabRemapping, kRemapMatrix };
inline constexpr std::array<const char*, 3> kStockOpNames = {"RestoreV2", "GenerateVocabRemapping",
                                                             "LoadAndRemapMatrix"};

// Registers a kernel for an op of TensorFlow. TensorFlow runs it instead of its own one, in the
// whole process and from then on: a kernel cannot be unregistered. Registers nothing if another
// library has done so: TensorFlow cannot choose between two kernels of one priority, and every call
// of the op would fail.
void RegisterOverride(StockOp op, void* (*create)(TF_OpKernelConstruction*),
                      void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*));

template <typename Kernel>
void RegisterOverride(StockOp op) {
  using Functions = KernelFunctions<Kernel, &CurrentStockFailure>;
  RegisterOverride(op, &Functions::Create, &Functions::Compute, &Functions::Destroy);
}

// How often the process has run the kernel, or -1 if it was not registered.
int64_t NumCalls(StockOp op);
void CountCall(StockOp op);

template <typename Kernel>
void RegisterOpAndKernel(const OpSpec& spec) {
  using Functions = KernelFunctions<Kernel, &CurrentFailure>;
  RegisterOp(spec);
  RegisterKernel(spec.name, &Functions::Create, &Functions::Compute, &Functions::Destroy);
}

void RegisterReadOp();
void RegisterMapOp();
void RegisterVerifyOp();
void RegisterMissingOp();
void RegisterRemapOp();

// Kernels for TensorFlow's ops.
void RegisterRestoreKernel();
void RegisterWarmStartKernels();

// The attributes that a node of TensorFlow's ops may have for these kernels. TensorFlow keeps
// attributes whose names begin with "_", and its own kernels ignore them.
struct NodeOptions {
  enum class Verify { kFull, kLazy, kNone };

  bool map = false;               // _tensorbundle_mode: "copy" (default) or "map"
  Verify verify = Verify::kFull;  // _tensorbundle_verify: "full" (default), "lazy" or "none"
  int64_t threads = 0;            // _tensorbundle_threads
  // _tensorbundle_fill: "given" (default) or "zero". "zero": GenerateVocabRemapping counts every
  // row as present, so that the graph builds no fill values, and LoadAndRemapMatrix fills with
  // zeros.
  bool zero_fill = false;

  // Throws: OpError (INVALID_ARGUMENT) for another word.
  static NodeOptions Of(const Attributes& attributes);
};

// The smallest number of bytes that is worth starting a thread for.
inline constexpr uint64_t kMinBytesPerThread = uint64_t{1} << 20;

// Returns how many threads to use for `num_bytes` bytes. `wanted` is the op's attribute; 0 means
// the number of processors that the process may use.
inline int ThreadsFor(int64_t wanted, uint64_t num_bytes) {
  const uint64_t useful = num_bytes / kMinBytesPerThread;
  if (useful <= 1) return 1;
  const uint64_t limit = wanted > 0 ? std::min<int64_t>(wanted, 1024) : AvailableProcessors();
  return static_cast<int>(std::min(useful, limit));
}

}  // namespace tensorbundle::op
