// SPDX-License-Identifier: Apache-2.0
// Declarations of the part of TensorFlow's C API that the ops use, and the table of its functions.
// The declarations hold for every TensorFlow from 2.15 on. The library does not link TensorFlow:
// FindTensorflow() looks the functions up in the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

extern "C" {

struct TF_Status;
struct TF_Tensor;
struct TF_TString;
struct TF_OpDefinitionBuilder;
struct TF_KernelBuilder;
struct TF_OpKernelConstruction;
struct TF_OpKernelContext;
struct TF_ShapeInferenceContext;
struct TF_ShapeHandle;
struct TFE_Context;
struct TFE_ContextOptions;
struct TFE_Op;
struct TFE_TensorHandle;

struct TF_Buffer {
  const void* data;
  size_t length;
  void (*data_deallocator)(void* data, size_t length);
};

}  // extern "C"

namespace tensorbundle::op {

// TF_Code.
enum class Code : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kDataLoss = 15,
};

// TF_DataType. Checkpoints store the same numbers.
using TypeNumber = int;

// The functions that the ops call, as X(result, name without TF_, arguments).
#define TENSORBUNDLE_TF_FUNCTIONS(X)                                                              \
  X(TF_Status*, NewStatus, (void))                                                                \
  X(void, DeleteStatus, (TF_Status*))                                                             \
  X(void, SetStatus, (TF_Status*, int code, const char* message))                                 \
  X(int, GetCode, (const TF_Status*))                                                             \
  X(const char*, Message, (const TF_Status*))                                                     \
  X(TF_Tensor*, NewTensor,                                                                        \
    (int type, const int64_t* dims, int rank, void* data, size_t size,                            \
     void (*deallocator)(void* data, size_t size, void* arg), void* arg))                         \
  X(void, DeleteTensor, (TF_Tensor*))                                                             \
  X(int, TensorType, (const TF_Tensor*))                                                          \
  X(int, NumDims, (const TF_Tensor*))                                                             \
  X(int64_t, Dim, (const TF_Tensor*, int axis))                                                   \
  X(size_t, TensorByteSize, (const TF_Tensor*))                                                   \
  X(void*, TensorData, (const TF_Tensor*))                                                        \
  X(TF_OpDefinitionBuilder*, NewOpDefinitionBuilder, (const char* name))                          \
  X(void, RegisterOpDefinition, (TF_OpDefinitionBuilder*, TF_Status*))                            \
  X(void, OpDefinitionBuilderAddAttr, (TF_OpDefinitionBuilder*, const char* spec))                \
  X(void, OpDefinitionBuilderAddInput, (TF_OpDefinitionBuilder*, const char* spec))               \
  X(void, OpDefinitionBuilderAddOutput, (TF_OpDefinitionBuilder*, const char* spec))              \
  X(void, OpDefinitionBuilderSetIsStateful, (TF_OpDefinitionBuilder*, bool))                      \
  X(void, OpDefinitionBuilderSetShapeInferenceFunction,                                           \
    (TF_OpDefinitionBuilder*, void (*)(TF_ShapeInferenceContext*, TF_Status*)))                   \
  X(void, ShapeInferenceContextSetUnknownShape, (TF_ShapeInferenceContext*, TF_Status*))          \
  X(TF_ShapeHandle*, ShapeInferenceContextScalar, (TF_ShapeInferenceContext*))                    \
  X(void, ShapeInferenceContextSetOutput,                                                         \
    (TF_ShapeInferenceContext*, int index, TF_ShapeHandle*, TF_Status*))                          \
  X(void, DeleteShapeHandle, (TF_ShapeHandle*))                                                   \
  X(TF_KernelBuilder*, NewKernelBuilder,                                                          \
    (const char* op, const char* device, void* (*create)(TF_OpKernelConstruction*),               \
     void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)))                        \
  X(void, KernelBuilder_Priority, (TF_KernelBuilder*, int32_t))                                   \
  X(void, RegisterKernelBuilder, (const char* name, TF_KernelBuilder*, TF_Status*))               \
  X(void, OpKernelConstruction_Failure, (TF_OpKernelConstruction*, TF_Status*))                   \
  X(bool, OpKernelConstruction_HasAttr, (TF_OpKernelConstruction*, const char* name, TF_Status*)) \
  X(void, OpKernelConstruction_GetAttrSize,                                                       \
    (TF_OpKernelConstruction*, const char* name, int32_t* list_size, int32_t* total_size,         \
     TF_Status*))                                                                                 \
  X(void, OpKernelConstruction_GetAttrString,                                                     \
    (TF_OpKernelConstruction*, const char* name, char* out, size_t capacity, TF_Status*))         \
  X(void, OpKernelConstruction_GetAttrStringList,                                                 \
    (TF_OpKernelConstruction*, const char* name, char** out, size_t* sizes, int capacity,         \
     void* storage, size_t storage_size, TF_Status*))                                             \
  X(void, OpKernelConstruction_GetAttrType,                                                       \
    (TF_OpKernelConstruction*, const char* name, int* out, TF_Status*))                           \
  X(void, OpKernelConstruction_GetAttrInt64,                                                      \
    (TF_OpKernelConstruction*, const char* name, int64_t* out, TF_Status*))                       \
  X(void, OpKernelConstruction_GetAttrInt64List,                                                  \
    (TF_OpKernelConstruction*, const char* name, int64_t* out, int capacity, TF_Status*))         \
  X(void, OpKernelContext_Failure, (TF_OpKernelContext*, TF_Status*))                             \
  X(int64_t, StepId, (TF_OpKernelContext*))                                                       \
  X(int, NumInputs, (TF_OpKernelContext*))                                                        \
  X(int, NumOutputs, (TF_OpKernelContext*))                                                       \
  X(int, ExpectedOutputDataType, (TF_OpKernelContext*, int index))                                \
  X(void, GetInput, (TF_OpKernelContext*, int index, TF_Tensor** tensor, TF_Status*))             \
  X(void, SetOutput, (TF_OpKernelContext*, int index, const TF_Tensor* tensor, TF_Status*))       \
  X(TF_Tensor*, AllocateOutput,                                                                   \
    (TF_OpKernelContext*, int index, int type, const int64_t* dims, int rank, size_t size,        \
     TF_Status*))                                                                                 \
  X(TF_Tensor*, ForwardInputOrAllocateOutput,                                                     \
    (TF_OpKernelContext*, const int* candidates, int num_candidates, int index,                   \
     const int64_t* dims, int rank, int* forwarded, TF_Status*))

// The functions that create variant tensors, as X(result, name without prefix, prefix, arguments).
#define TENSORBUNDLE_TFE_FUNCTIONS(X)                                                          \
  X(TF_Tensor*, AllocateTensor, "TF_", (int type, const int64_t* dims, int rank, size_t size)) \
  X(TFE_ContextOptions*, NewContextOptions, "TFE_", (void))                                    \
  X(void, DeleteContextOptions, "TFE_", (TFE_ContextOptions*))                                 \
  X(TFE_Context*, NewContext, "TFE_", (const TFE_ContextOptions*, TF_Status*))                 \
  X(TFE_TensorHandle*, NewTensorHandle, "TFE_", (const TF_Tensor*, TF_Status*))                \
  X(void, DeleteTensorHandle, "TFE_", (TFE_TensorHandle*))                                     \
  X(TF_Tensor*, TensorHandleResolve, "TFE_", (TFE_TensorHandle*, TF_Status*))                  \
  X(TFE_Op*, NewOp, "TFE_", (TFE_Context*, const char* name, TF_Status*))                      \
  X(void, DeleteOp, "TFE_", (TFE_Op*))                                                         \
  X(void, OpAddInput, "TFE_", (TFE_Op*, TFE_TensorHandle*, TF_Status*))                        \
  X(void, OpSetAttrType, "TFE_", (TFE_Op*, const char* name, int type))                        \
  X(void, Execute, "TFE_", (TFE_Op*, TFE_TensorHandle * *results, int* num_results, TF_Status*))

struct EagerApi {
#define TENSORBUNDLE_TFE_POINTER(result, name, prefix, arguments) result(*name) arguments = nullptr;
  TENSORBUNDLE_TFE_FUNCTIONS(TENSORBUNDLE_TFE_POINTER)
#undef TENSORBUNDLE_TFE_POINTER
  bool is_complete = false;
};

// Pointers to TensorFlow's functions, named without "TF_".
struct ApiTable {
#define TENSORBUNDLE_TF_POINTER(result, name, arguments) result(*name) arguments = nullptr;
  TENSORBUNDLE_TF_FUNCTIONS(TENSORBUNDLE_TF_POINTER)
#undef TENSORBUNDLE_TF_POINTER

  // Functions of elements of string tensors. Null if this TensorFlow does not export them.
  void (*StringCopy)(TF_TString*, const char* bytes, size_t size) = nullptr;
  const char* (*StringGetDataPointer)(const TF_TString*) = nullptr;
  size_t (*StringGetSize)(const TF_TString*) = nullptr;

  // Returns a serialized KernelList of the kernels that any library has registered.
  TF_Buffer* (*GetRegisteredKernelsForOp)(const char* op, TF_Status*) = nullptr;
  void (*DeleteBuffer)(TF_Buffer*) = nullptr;

  EagerApi eager;
};

// Fills the table that Tf() returns.
// Requires: called once, when the library is loaded.
// Returns: false, and sets `*error`, if TensorFlow is not loaded or does not export a function.
bool FindTensorflow(std::string* error);

// The table.
// Threads: safe once FindTensorflow() has returned.
const ApiTable& Tf();

}  // namespace tensorbundle::op
