// SPDX-License-Identifier: Apache-2.0
// The ops, one function each, and what they share in being registered.
#pragma once

#include <initializer_list>

#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {

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

}  // namespace tensorbundle::op
