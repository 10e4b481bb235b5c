// SPDX-License-Identifier: Apache-2.0
// DLPack capsules over NumPy arrays, for the types that NumPy's own export refuses (bfloat16 and
// the float8 family) and with the read-only flag on every NumPy version. The structures are those
// of DLPack 1.x, laid out by its specification.
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "bindings/pybind.h"

namespace tensorbundle {
namespace {

struct DLDevice {
  int32_t type;
  int32_t id;
};
constexpr int32_t kCpu = 1;

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct DLManagedTensor {  // before version 1.0: no version, no flags
  DLTensor tensor;
  void* manager;
  void (*deleter)(DLManagedTensor*);
};

struct DLManagedTensorVersioned {
  uint32_t major;
  uint32_t minor;
  void* manager;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor tensor;
};
constexpr uint32_t kMajor = 1;
constexpr uint32_t kMinor = 0;
constexpr uint64_t kReadOnlyFlag = 1;
constexpr uint64_t kCopiedFlag = 2;

// A capsule's structure together with what it points to.
template <typename Managed>
struct Export {
  Managed managed{};
  py::object array;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

template <typename Managed>
void Delete(Managed* managed) {
  if (!Py_IsInitialized()) return;  // the consumer outlived the interpreter
  const GilAcquired acquired;
  delete static_cast<Export<Managed>*>(managed->manager);
}

template <typename Managed>
struct CapsuleNames;
template <>
struct CapsuleNames<DLManagedTensor> {
  static constexpr const char* kUnused = "dltensor";
};
template <>
struct CapsuleNames<DLManagedTensorVersioned> {
  static constexpr const char* kUnused = "dltensor_versioned";
};

// Frees a capsule that was not consumed; a consumer renames it.
template <typename Managed>
void DestroyCapsule(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, CapsuleNames<Managed>::kUnused)) return;
  auto* managed =
      static_cast<Managed*>(PyCapsule_GetPointer(capsule, CapsuleNames<Managed>::kUnused));
  managed->deleter(managed);
}

template <typename Managed>
std::unique_ptr<Export<Managed>> NewExport(const py::array& array, DLDataType dtype) {
  auto exported = std::make_unique<Export<Managed>>();
  exported->array = array;
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    exported->shape.push_back(array.shape(axis));
    exported->strides.push_back(array.strides(axis) / array.itemsize());
  }
  DLTensor& tensor = exported->managed.tensor;
  tensor.data = const_cast<void*>(array.data());
  tensor.device = {kCpu, 0};
  tensor.ndim = static_cast<int32_t>(array.ndim());
  tensor.dtype = dtype;
  tensor.shape = exported->shape.data();
  tensor.strides = exported->strides.data();
  exported->managed.manager = exported.get();
  exported->managed.deleter = Delete<Managed>;
  return exported;
}

template <typename Managed>
py::object NewCapsule(std::unique_ptr<Export<Managed>> exported) {
  PyObject* capsule =
      PyCapsule_New(&exported->managed, CapsuleNames<Managed>::kUnused, DestroyCapsule<Managed>);
  if (capsule == nullptr) throw py::error_already_set();
  exported.release();  // now owned by the capsule
  return py::reinterpret_steal<py::object>(capsule);
}

py::object DlpackCapsule(const py::array& array, uint8_t code, uint8_t bits, bool versioned,
                         bool copied) {
  const DLDataType dtype{code, bits, 1};
  if (!versioned) return NewCapsule(NewExport<DLManagedTensor>(array, dtype));
  auto exported = NewExport<DLManagedTensorVersioned>(array, dtype);
  exported->managed.major = kMajor;
  exported->managed.minor = kMinor;
  exported->managed.flags = (array.writeable() ? 0 : kReadOnlyFlag) | (copied ? kCopiedFlag : 0);
  return NewCapsule(std::move(exported));
}

}  // namespace

void RegisterDlpack(py::module_& module) { module.def("dlpack_capsule", &DlpackCapsule); }

}  // namespace tensorbundle
