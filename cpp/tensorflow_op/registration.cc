// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/registration.h"

namespace tensorbundle::op {
namespace {

void AllUnknown(TF_ShapeInferenceContext* context, TF_Status* status) {
  Tf().ShapeInferenceContextSetUnknownShape(context, status);
}

void OneScalar(TF_ShapeInferenceContext* context, TF_Status* status) {
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
      builder, spec.shapes == OutputShapes::kScalar ? &OneScalar : &AllUnknown);
  const StatusPtr status = NewStatus();
  Tf().RegisterOpDefinition(builder, status.get());  // takes the builder
  CheckStatus(status.get());
}

void RegisterKernel(const char* op, void* (*create)(TF_OpKernelConstruction*),
                    void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  TF_KernelBuilder* builder = Tf().NewKernelBuilder(op, "CPU", create, compute, destroy);
  const StatusPtr status = NewStatus();
  Tf().RegisterKernelBuilder(op, builder, status.get());  // takes the builder
  CheckStatus(status.get());
}

}  // namespace tensorbundle::op
