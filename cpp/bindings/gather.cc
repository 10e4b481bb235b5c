// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "bindings/arrays.h"
#include "bindings/held.h"
#include "bindings/pybind.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/remap.h"

namespace tensorbundle {
namespace {

RowFillValues::Kind ParseKind(const std::string& kind) {
  if (kind == "none") return RowFillValues::Kind::kNone;
  if (kind == "element") return RowFillValues::Kind::kElement;
  if (kind == "row") return RowFillValues::Kind::kRow;
  if (kind == "rows") return RowFillValues::Kind::kRows;
  throw std::invalid_argument("no fill kind '" + kind + "'");
}

template <typename Id>
std::span<const Id> SpanOf(const py::array& ids) {
  return {static_cast<const Id*>(ids.data()), static_cast<size_t>(ids.size())};
}

// The numbers of a C-contiguous, aligned array.
RowIds ToRowIds(const py::array& ids) {
  constexpr int kWanted = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
  if ((ids.flags() & kWanted) != kWanted) {
    throw std::invalid_argument("row numbers must be C-contiguous and aligned");
  }
  if (py::isinstance<py::array_t<int32_t>>(ids)) return SpanOf<int32_t>(ids);
  if (py::isinstance<py::array_t<int64_t>>(ids)) return SpanOf<int64_t>(ids);
  if (py::isinstance<py::array_t<uint32_t>>(ids)) return SpanOf<uint32_t>(ids);
  if (py::isinstance<py::array_t<uint64_t>>(ids)) return SpanOf<uint64_t>(ids);
  throw std::invalid_argument("row numbers must be int32, int64, uint32 or uint64");
}

ByteSpan BytesOf(const py::array& array) {
  return {static_cast<const uint8_t*>(array.data()), static_cast<size_t>(array.nbytes())};
}

std::optional<std::span<const int64_t>> OptionalIds(const py::object& ids) {
  if (ids.is_none()) return std::nullopt;
  const RowIds typed = ToRowIds(py::reinterpret_borrow<py::array>(ids));
  if (const auto* wide = std::get_if<std::span<const int64_t>>(&typed)) return *wide;
  throw std::invalid_argument("a remapping must be int64");
}

Remapping RemappingOf(const py::object& rows, uint64_t num_rows, const py::object& columns) {
  const Remapping remapping{OptionalIds(rows), num_rows, OptionalIds(columns)};
  if (remapping.rows && remapping.rows->size() != num_rows) {
    throw std::invalid_argument("there must be one row number per row");
  }
  return remapping;
}

// Elements that a remapped table has and its source has not.
uint64_t MissingCells(const Checkpoint& checkpoint, size_t index, const py::object& rows,
                      uint64_t num_rows, const py::object& columns, int threads) {
  const Remapping remapping = RemappingOf(rows, num_rows, columns);
  const py::gil_scoped_release release;
  return CountMissingCells(checkpoint, checkpoint.catalog().tensors.at(index), remapping, threads);
}

// Where a tensor's rows lie: made once per handle, since finding it looks at every stored slice.
class Rows : public HeldByPython {
 public:
  Rows(std::shared_ptr<const Checkpoint> checkpoint, size_t index)
      : checkpoint_(std::move(checkpoint)),
        tensor_(checkpoint_->catalog().tensors.at(index)),
        layout_(LayOutRows(*checkpoint_, tensor_)) {}

  void Take(const py::array& ids, py::array out, const std::string& kind, const py::array& fill,
            int threads) const {
    const RowIds row_ids = ToRowIds(ids);
    const RowFillValues row_fill{
        ParseKind(kind),
        {static_cast<const uint8_t*>(fill.data()), static_cast<size_t>(fill.nbytes())}};
    const MutableByteSpan destination = Destination(out);
    // All three arrays are referenced by the caller, so their memory stays while the GIL is away.
    const py::gil_scoped_release release;
    GatherRows(*checkpoint_, tensor_, layout_, row_ids, row_fill, destination, threads);
  }

  // What Take would throw for the numbers.
  void CheckTake(const py::array& ids, const std::string& kind, int threads) const {
    const RowIds row_ids = ToRowIds(ids);
    const RowFillValues::Kind fill_kind = ParseKind(kind);
    const py::gil_scoped_release release;
    CheckRows(*checkpoint_, tensor_, layout_, row_ids, fill_kind, threads);
  }

  // What Remap would throw for the numbers.
  void CheckRemap(const py::object& rows, uint64_t num_rows, const py::object& columns,
                  int threads) const {
    const Remapping remapping = RemappingOf(rows, num_rows, columns);
    const py::gil_scoped_release release;
    RequireRemappable(*checkpoint_, tensor_, layout_, remapping, threads);
  }

  bool has_faults() const { return layout_.has_errors; }

  // `rows` and `columns` are int64 arrays or None.
  void Remap(const py::object& rows, uint64_t num_rows, const py::object& columns,
             const py::array& fill, bool fill_is_element, py::array out, uint64_t out_stride,
             int threads) const {
    const Remapping remapping = RemappingOf(rows, num_rows, columns);
    const CellFillValues cell_fill{
        fill_is_element ? CellFillValues::Kind::kElement : CellFillValues::Kind::kCells,
        BytesOf(fill)};
    const MutableByteSpan destination = Destination(out);
    const py::gil_scoped_release release;  // as in Take
    RemapTable(*checkpoint_, tensor_, layout_, remapping, cell_fill, destination, out_stride,
               threads);
  }

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
  const Tensor& tensor_;
  RowLayout layout_;
};

}  // namespace

void RegisterGather(py::module_& module) {
  py::class_<Rows, std::shared_ptr<Rows>>(module, "Rows", py::is_final(), MadeByCore())
      .def_static(
          "of",
          [](const BoundCheckpoint& checkpoint, size_t index) {
            const py::gil_scoped_release release;
            return std::make_shared<Rows>(checkpoint.core, index);
          },
          "checkpoint"_a, "index"_a)
      .def("take", &Rows::Take, "ids"_a, "out"_a, "fill_kind"_a, "fill"_a, py::kw_only(),
           "threads"_a)
      .def_property_readonly("has_faults", &Rows::has_faults)
      .def("check_take", &Rows::CheckTake, "ids"_a, "fill_kind"_a, py::kw_only(), "threads"_a)
      .def("check_remap", &Rows::CheckRemap, "rows"_a, "num_rows"_a, "columns"_a, py::kw_only(),
           "threads"_a)
      .def("remap", &Rows::Remap, "rows"_a, "num_rows"_a, "columns"_a, "fill"_a,
           "fill_is_element"_a, "out"_a, "out_stride"_a, py::kw_only(), "threads"_a);
  module.def("missing_cells", Of(&MissingCells), "checkpoint"_a, "index"_a, "rows"_a, "num_rows"_a,
             "columns"_a, py::kw_only(), "threads"_a);
}

}  // namespace tensorbundle
