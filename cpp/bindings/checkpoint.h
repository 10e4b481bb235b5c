// SPDX-License-Identifier: Apache-2.0
// The classes _core.Checkpoint and _core.Tensor.
//
// A checkpoint can be closed while its tensors, arrays and streams live on. A bound object
// therefore gets the checkpoint from BoundCheckpoint::Opened() at each call, and holds it until the
// call ends.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "bindings/pybind.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/row_layout.h"

namespace tensorbundle {

// The layout of a tensor's rows, and the checkpoint that it points into.
struct RowTable {
  RowTable(std::shared_ptr<const Checkpoint> opened, size_t index);

  const std::shared_ptr<const Checkpoint> checkpoint;
  const Tensor& tensor;
  const RowLayout layout;
};

class BoundCheckpoint : public HeldByPython {
 public:
  // `name` is for messages. `threads` is 0 for the default. `verify`: reads compare checksums.
  BoundCheckpoint(std::shared_ptr<const Checkpoint> opened, std::string name, bool verify,
                  int threads);

  // Throws ValueError after Close().
  std::shared_ptr<const Checkpoint> Opened() const;

  // The row layout of a tensor, computed once per tensor because it visits every stored slice. A
  // layout with errors is computed again each time: a missing file may come back. Call it without
  // the GIL. Throws as LayOutRows, and ValueError after Close().
  std::shared_ptr<const RowTable> RowsOf(size_t index) const;

  // Releases the files. Call it without the GIL.
  void Close();

  bool closed() const;
  size_t num_tensors() const { return num_tensors_; }
  bool verify() const { return verify_; }
  int threads() const;  // for one call

 private:
  const std::string name_;
  const bool verify_;
  const int threads_;
  const size_t num_tensors_;
  const int processors_;  // asking the system takes longer than a small gather
  // Guarded by ForkLock:
  std::shared_ptr<const Checkpoint> opened_;
  mutable std::unordered_map<size_t, std::shared_ptr<const RowTable>> rows_;
};

// The names of a checkpoint, without its files.
struct BoundNames : HeldByPython {
  explicit BoundNames(std::shared_ptr<const Catalog> shared) : catalog(std::move(shared)) {}
  const std::shared_ptr<const Catalog> catalog;
};

class BoundTensor : public HeldByPython {
 public:
  // Call both with the GIL. `opened` is what `checkpoint` has open.
  BoundTensor(std::shared_ptr<const BoundCheckpoint> checkpoint, const Checkpoint& opened,
              size_t index);
  BoundTensor(std::shared_ptr<const BoundCheckpoint> checkpoint, size_t index, int32_t type_number,
              py::str name, py::tuple shape);

  const std::shared_ptr<const BoundCheckpoint> checkpoint;
  const size_t index;  // in the catalog
  const int32_t type_number;
  // These stay valid after the checkpoint is closed.
  const py::str name;
  const py::tuple shape;
  const py::object dtype;
};

// A tensor during a call.
struct OpenTensor {
  explicit OpenTensor(const BoundTensor& self)
      : bound(self),
        checkpoint(self.checkpoint->Opened()),
        tensor(checkpoint->catalog().tensors[self.index]) {}

  std::span<const int64_t> shape() const { return checkpoint->catalog().Shape(tensor); }

  const BoundTensor& bound;
  const std::shared_ptr<const Checkpoint> checkpoint;
  const Tensor& tensor;
};

// Sets the number of threads for checkpoints without one of their own; 0: all processors.
void SetDefaultThreads(int threads);
int DefaultThreads();

// A new array for the elements of a box. Throws before it allocates much memory for elements that
// are not stored. Requires: the type is plain. Throws as RequireBox.
py::array NewBoxArray(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box,
                      std::span<const int64_t> shape);

// A filled array, or for rank 0 its element as a NumPy scalar.
py::object ArrayOrScalar(py::array array);

// All elements of a tensor as an array that the caller owns, or a NumPy scalar or `bytes` for rank
// 0; None for elements that need a conversion in Python: unknown and sign-extended types. Throws as
// ReadBox and ReadStrings.
py::object ReadWholeTensor(const BoundCheckpoint& bound, const Checkpoint& checkpoint,
                           const Tensor& tensor);

}  // namespace tensorbundle
