// SPDX-License-Identifier: Apache-2.0
// The class _core.Tensor: views, reads, rows and byte ranges of one tensor.
//
// Each function converts its arguments, releases the GIL, calls the core, and converts the result.
// Arguments are referenced by the caller's frame, so the memory of arrays stays valid while the GIL
// is released. A box is given by two sequences: its offset and its shape.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/checkpoint.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/remap.h"
#include "tensorbundle/read/row_stream.h"
#include "tensorbundle/read/slice_cover.h"

namespace tensorbundle {
namespace {

using Sizes = std::vector<int64_t>;
using RangeArray = py::array_t<uint64_t, py::array::c_style>;
using RowArray = py::array_t<int64_t, py::array::c_style>;

// A function of an OpenTensor as one that Python calls on a Tensor.
template <typename Result, typename... Args>
auto Of(Result (*function)(const OpenTensor&, Args...)) {
  return [function](const BoundTensor& self, Args... args) -> Result {
    return function(OpenTensor(self), std::forward<Args>(args)...);
  };
}

py::tuple ToTuple(std::span<const int64_t> numbers) {
  py::tuple tuple(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    PyTuple_SET_ITEM(tuple.ptr(), static_cast<Py_ssize_t>(i),
                     Steal(PyLong_FromLongLong(numbers[i])).release().ptr());
  }
  return tuple;
}

Box BoxOf(const OpenTensor& t, const Sizes& offset, const Sizes& lengths) {
  const std::span<const int64_t> shape = t.shape();
  if (offset.size() != shape.size() || lengths.size() != shape.size()) {
    throw std::invalid_argument("a box needs one start and one length per axis");
  }
  Box box;
  box.reserve(shape.size());
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (offset[axis] < 0 || lengths[axis] < 0 || offset[axis] > shape[axis] ||
        lengths[axis] > shape[axis] - offset[axis]) {
      throw std::out_of_range("the box leaves shape " + ShapeToString(shape));
    }
    box.push_back({offset[axis], lengths[axis]});
  }
  return box;
}

// ---- What is stored

// (offset, shape, file, offset in the file, bytes, CRC32C or None) of each stored slice.
py::list Slices(const OpenTensor& t) {
  const Catalog& catalog = t.checkpoint->catalog();
  py::list rows;
  for (const StoredSlice& slice : catalog.Slices(t.tensor)) {
    const Box box = catalog.BoxOf(t.tensor, slice);
    py::object checksum = py::none();
    if (slice.has_checksum) checksum = py::int_(crc32c::Unmask(slice.masked_checksum));
    rows.append(py::make_tuple(ToTuple(Starts(box)), ToTuple(Lengths(box)),
                               PathOf(catalog.files[slice.file]), slice.offset, slice.size,
                               checksum));
  }
  return rows;
}

// Whether slices must be decoded before their bytes are elements of fixed size.
bool IsDecoded(const OpenTensor& t) {
  const auto is_record = [](const StoredSlice& slice) {
    return slice.encoding == Encoding::kRecord;
  };
  return std::ranges::any_of(t.checkpoint->catalog().Slices(t.tensor), is_record);
}

const char* ModeOf(const OpenTensor& t) {
  if (t.checkpoint->files().has_opener()) return "requests";
  switch (t.checkpoint->mode()) {
    case IoMode::kAuto:
      return "auto";
    case IoMode::kMmap:
      return "mmap";
    case IoMode::kPread:
      return "pread";
    case IoMode::kDirect:
      return "direct";
  }
  return "auto";
}

py::list FilePaths(const OpenTensor& t) {
  py::list paths;
  for (const std::string& path : t.checkpoint->catalog().files) paths.append(PathOf(path));
  return paths;
}

// Bytes of the stored slices. Of a slice that must be decoded, only the elements count: the stored
// bytes are a block of the table, which other tensors may share.
Int NumBytes(const OpenTensor& t) {
  const Catalog& catalog = t.checkpoint->catalog();
  const DataTypeInfo* type = FindDataType(t.tensor.dtype);
  uint64_t total = 0;
  for (const StoredSlice& slice : catalog.Slices(t.tensor)) {
    const bool is_record = slice.encoding == Encoding::kRecord && type != nullptr;
    total += is_record && type->item_size != 0
                 ? Volume(catalog.BoxOf(t.tensor, slice)) * type->item_size
                 : slice.size;
  }
  return {total};
}

// Why a tensor cannot be read whole and compared with its checksums.
struct ReadError {
  const char* kind = nullptr;  // in two or three words; null: there is no error
  std::string message;
};

ReadError FindError(const Checkpoint& checkpoint, const Tensor& tensor) {
  const Catalog& catalog = checkpoint.catalog();
  const char* corruption = "damaged file";
  try {
    RequireKnownType(tensor);
    for (const StoredSlice& slice : catalog.Slices(tensor)) {
      checkpoint.CheckSlice(tensor, slice, Compared::kYes);
    }
    if (checkpoint.records() != nullptr) {
      for (const StoredSlice& slice : catalog.Slices(tensor)) {
        checkpoint.records()->RequireRecord(tensor, slice);
      }
    }
    corruption = "stored in part";
    if (tensor.num_elements > 0) FindOverlaps(catalog, tensor, WholeBox(catalog.Shape(tensor)));
  } catch (const CheckpointNotFoundError& error) {
    return {"missing file", error.what()};
  } catch (const IOFailure& error) {
    return {"unreadable file",
            std::string(error.what()) + ": " + std::strerror(error.error_number())};
  } catch (const UnsupportedError& error) {
    return {"not supported", error.what()};
  } catch (const Error& error) {
    return {corruption, error.what()};
  }
  return {};
}

py::object GetError(const OpenTensor& t) {
  ReadError error;
  {
    const GilReleased released;
    error = FindError(*t.checkpoint, t.tensor);
  }
  if (error.kind == nullptr) return py::none();
  return py::make_tuple(error.kind, TextOf(error.message));
}

// ---- Views

// Opening and mapping a file can block, and a file that may be newer than its index is verified.
TensorView WithoutGil(TensorView (*view)(const Checkpoint&, const Tensor&), const OpenTensor& t) {
  const GilReleased released;
  return view(*t.checkpoint, t.tensor);
}

py::object View(const OpenTensor& t) {
  if (!IsPlain(t.bound.type_number)) return py::none();
  const TensorView view = WithoutGil(&ViewTensor, t);
  if (!view) return py::none();
  return ArrayOver(view.owner, view.bytes.data(), t.bound.dtype, t.shape(), nullptr,
                   Access::kReadOnly);
}

// Returns numpy.integer. The first call may release the GIL: module.cc says what that would do.
const py::object& NumpyInteger() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> integer;
  return integer
      .call_once_and_store_result([] { return py::module_::import("numpy").attr("integer"); })
      .get_stored();
}

// The row that an index selects: an int or a NumPy integer inside axis 0. Nothing for other
// indices, which Python handles: they select more than a row, or are errors.
std::optional<int64_t> RowNumber(const BoundTensor& self, py::handle index) {
  if (PyTuple_GET_SIZE(self.shape.ptr()) == 0) return std::nullopt;
  py::object number;
  if (!PyLong_CheckExact(index.ptr())) {
    auto* const type = reinterpret_cast<PyTypeObject*>(NumpyInteger().ptr());
    if (PyObject_TypeCheck(index.ptr(), type) == 0) {
      return std::nullopt;
    }
    number = Steal(PyNumber_Index(index.ptr()));
    index = number;
  }
  int overflow = 0;
  int64_t row = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  const int64_t num_rows = PyLong_AsLongLong(PyTuple_GET_ITEM(self.shape.ptr(), 0));
  if (row < 0) row += num_rows;
  if (overflow != 0 || row < 0 || row >= num_rows) return std::nullopt;
  return row;
}

// A view of a row, or a NumPy scalar if the tensor has one axis. None if `index` is not the number
// of a row, or the tensor cannot be viewed.
py::object ViewRow(const BoundTensor& self, const py::object& index) {
  const std::optional<int64_t> row = RowNumber(self, index);
  if (!row || !IsPlain(self.type_number)) return py::none();
  const OpenTensor t(self);
  const TensorView view = WithoutGil(&ViewTensor, t);
  if (!view || view.bytes.empty()) return py::none();
  const std::span<const int64_t> shape = t.shape();
  const uint8_t* first = view.bytes.data() + view.bytes.size() / static_cast<uint64_t>(shape[0]) *
                                                 static_cast<uint64_t>(*row);
  if (shape.size() == 1) return ScalarAt(first, self.dtype);
  return ArrayOver(view.owner, first, self.dtype, shape.subspan(1), nullptr, Access::kReadOnly);
}

// The reason why View() or CopyOnWrite() returns None, or None.
py::object ViewObstacle(const OpenTensor& t) {
  const TensorView view = WithoutGil(&ViewTensor, t);
  if (!view) return py::str(ToString(view.reason));
  return py::none();
}

// An array over a non-empty box inside one stored slice, which `map` maps; None if there is no such
// slice, or no view.
py::object ArrayOverBox(TensorView (*map)(const Checkpoint&, const Tensor&, const StoredSlice&),
                        Access access, const OpenTensor& t, const Sizes& offset,
                        const Sizes& lengths) {
  const Box box = BoxOf(t, offset, lengths);
  if (!IsPlain(t.bound.type_number) || Volume(box) == 0) return py::none();
  const Catalog& catalog = t.checkpoint->catalog();
  TensorView view;
  std::vector<SliceOverlap> overlaps;
  {
    const GilReleased released;
    overlaps = FindOverlaps(catalog, t.tensor, box);
    if (overlaps.size() == 1) view = map(*t.checkpoint, t.tensor, *overlaps[0].slice);
  }
  if (overlaps.size() != 1 || !view) return py::none();
  const Box& slice = overlaps[0].slice_box;
  std::vector<py::ssize_t> strides(box.size());
  auto stride = static_cast<py::ssize_t>(RequireKnownType(t.tensor).item_size);
  const uint8_t* first = view.bytes.data();
  for (size_t axis = box.size(); axis-- > 0;) {
    strides[axis] = stride;
    first += stride * (box[axis].start - slice[axis].start);
    stride *= slice[axis].length;
  }
  return ArrayOver(view.owner, first, t.bound.dtype, lengths, strides.data(), access);
}

py::object ViewBox(const OpenTensor& t, const Sizes& offset, const Sizes& lengths) {
  return ArrayOverBox(&ViewSlice, Access::kReadOnly, t, offset, lengths);
}

// (file, offset in the file, reason): where a non-empty box starts, or the reason why its elements
// are not one range of a file.
py::tuple LocateBoxIn(const OpenTensor& t, const Sizes& offset, const Sizes& lengths) {
  const Catalog& catalog = t.checkpoint->catalog();
  const BoxLocation location = FindFileRange(catalog, t.tensor, BoxOf(t, offset, lengths));
  if (!location) return py::make_tuple("", 0, ToString(location.reason));
  return py::make_tuple(TextOf(catalog.files[location.range.file]), location.range.offset, "");
}

py::object CopyOnWrite(const OpenTensor& t) {
  const TensorView view = WithoutGil(&CopyOnWriteTensor, t);
  if (!view) return py::none();
  return ArrayOver(view.owner, view.bytes.data(), t.bound.dtype, t.shape(), nullptr,
                   Access::kWritable);
}

py::object CopyOnWriteBox(const OpenTensor& t, const Sizes& offset, const Sizes& lengths) {
  return ArrayOverBox(&CopyOnWriteSlice, Access::kWritable, t, offset, lengths);
}

// ---- Copies

void CheckBox(const OpenTensor& t, const Sizes& offset, const Sizes& lengths) {
  const Box box = BoxOf(t, offset, lengths);
  const GilReleased released;
  RequireBox(*t.checkpoint, t.tensor, box);
}

void Read(const OpenTensor& t, const Sizes& offset, const Sizes& lengths, py::array out) {
  const Box box = BoxOf(t, offset, lengths);
  const MutableByteSpan destination = Destination(out);
  const ReadOptions options{t.bound.checkpoint->threads(), t.bound.checkpoint->verify()};
  const GilReleased released;
  ReadBox(*t.checkpoint, t.tensor, box, destination, options);
}

// The elements of a box as a new array of shape `shape`, or as a NumPy scalar for rank 0.
// Requires: the type is plain.
py::object ReadNew(const BoundCheckpoint& bound, const Checkpoint& checkpoint, const Tensor& tensor,
                   const Box& box, std::span<const int64_t> shape) {
  const ReadOptions options{bound.threads(), bound.verify()};
  py::array array = NewBoxArray(checkpoint, tensor, box, shape);
  const MutableByteSpan destination = Destination(array);
  {
    const GilReleased released;
    ReadBox(checkpoint, tensor, box, destination, options);
  }
  return ArrayOrScalar(std::move(array));
}

py::object ReadWhole(const OpenTensor& t) {
  return ReadWholeTensor(*t.bound.checkpoint, *t.checkpoint, t.tensor);
}

// A copy of a row; None if `index` is not the number of a row, or Python must convert the elements.
py::object ReadRow(const BoundTensor& self, const py::object& index) {
  const std::optional<int64_t> row = RowNumber(self, index);
  if (!row || !IsPlain(self.type_number)) return py::none();
  const OpenTensor t(self);
  const std::span<const int64_t> shape = t.shape();
  Box box = WholeBox(shape);
  box[0] = {*row, 1};
  return ReadNew(*self.checkpoint, *t.checkpoint, t.tensor, box, shape.subspan(1));
}

// ---- Strings and variants: arrays of bytes objects

py::bytes ToBytes(std::string_view text) { return {text.data(), text.size()}; }

StringElements ReadSlice(const BoundCheckpoint& bound, const Checkpoint& checkpoint,
                         const Tensor& tensor, const StoredSlice& slice) {
  const GilReleased released;
  return ReadStrings(checkpoint, tensor, slice, bound.verify());
}

// Copies the intersection of `source` and `destination`, boxes of one tensor, from the elements of
// `source` to an array of objects, in which `destination` begins at `first`.
void CopyStrings(const StringElements& elements, const Box& source, const Box& destination,
                 const Box& intersection, PyObject** first) {
  const CopyLayout layout(source, destination, intersection, 1);
  layout.ForEach(0, layout.count(), [&](const CopyLayout::Span& span) {
    for (uint64_t i = 0; i < layout.span_size(); ++i) {
      PyObject*& place = first[span.destination + i];
      PyObject* before = place;
      place = ToBytes(elements[span.source + i]).release().ptr();
      Py_XDECREF(before);
    }
  });
}

py::array NewObjects(std::span<const int64_t> shape) {
  return NewArray(DtypeOf(static_cast<int32_t>(DataType::kString)), shape);
}

// All elements of one stored slice, in the shape of the slice.
py::array ReadStringSlice(const OpenTensor& t, size_t number) {
  const Catalog& catalog = t.checkpoint->catalog();
  const std::span<const StoredSlice> slices = catalog.Slices(t.tensor);
  if (number >= slices.size()) throw std::out_of_range("no slice " + std::to_string(number));
  const StringElements elements =
      ReadSlice(*t.bound.checkpoint, *t.checkpoint, t.tensor, slices[number]);
  const Box box = catalog.BoxOf(t.tensor, slices[number]);
  py::array array = NewObjects(Lengths(box));
  if (Volume(box) == 0) return array;
  CopyStrings(elements, box, box, box, static_cast<PyObject**>(array.mutable_data()));
  return array;
}

// The elements of a box, in its shape.
py::array ReadStringsIn(const Box& box, const BoundCheckpoint& bound, const Checkpoint& checkpoint,
                        const Tensor& tensor) {
  std::vector<SliceOverlap> overlaps;
  if (Volume(box) != 0) {
    const GilReleased released;
    overlaps = FindOverlaps(checkpoint.catalog(), tensor, box);
  }
  py::array array = NewObjects(Lengths(box));  // only for elements that are stored
  for (const SliceOverlap& overlap : overlaps) {
    CopyStrings(ReadSlice(bound, checkpoint, tensor, *overlap.slice), overlap.slice_box, box,
                overlap.intersection, static_cast<PyObject**>(array.mutable_data()));
  }
  return array;
}

py::array ReadStringBox(const OpenTensor& t, const Sizes& offset, const Sizes& lengths) {
  return ReadStringsIn(BoxOf(t, offset, lengths), *t.bound.checkpoint, *t.checkpoint, t.tensor);
}

// Rows of axis 0, which are in ascending order, without repetition. Each stored slice is read once.
py::array ReadStringRows(const OpenTensor& t, const RowArray& rows) {
  const std::span<const int64_t> wanted(rows.data(), static_cast<size_t>(rows.size()));
  Box row_box = WholeBox(t.shape());
  Sizes shape = Lengths(row_box);
  const int64_t num_rows = row_box.at(0).length;
  if (!std::is_sorted(wanted.begin(), wanted.end()) ||
      (!wanted.empty() && (wanted.front() < 0 || wanted.back() >= num_rows))) {
    throw std::out_of_range("rows must be ascending and in the tensor");
  }
  shape[0] = static_cast<int64_t>(wanted.size());
  row_box[0].length = 1;
  const uint64_t row_size = Volume(row_box);
  if (row_size == 0 || wanted.empty()) return NewObjects(shape);
  const RowCover cover = [&] {
    const GilReleased released;
    RowCover found = CoverRows(t.checkpoint->catalog(), t.tensor);
    for (const int64_t row : wanted) {
      const CoveredRows& group = found.At(row);
      if (group.error) std::rethrow_exception(group.error);
    }
    return found;
  }();
  py::array array = NewObjects(shape);  // only for elements that are stored
  for (const SliceOverlap& overlap : cover.overlaps) {
    const Extent slice_rows = overlap.slice_box[0];
    const auto begin = std::lower_bound(wanted.begin(), wanted.end(), slice_rows.start);
    const auto end = std::lower_bound(begin, wanted.end(), slice_rows.end());
    if (begin == end) continue;
    const StringElements elements =
        ReadSlice(*t.bound.checkpoint, *t.checkpoint, t.tensor, *overlap.slice);
    Box intersection = overlap.slice_box;
    for (auto row = begin; row != end; ++row) {
      row_box[0] = intersection[0] = {*row, 1};
      CopyStrings(elements, overlap.slice_box, row_box, intersection,
                  static_cast<PyObject**>(array.mutable_data()) +
                      static_cast<uint64_t>(row - wanted.begin()) * row_size);
    }
  }
  return array;
}

// ---- Rows by number

RowFillValues::Kind ParseFillKind(const std::string& kind) {
  if (kind == "none") return RowFillValues::Kind::kNone;
  if (kind == "element") return RowFillValues::Kind::kElement;
  if (kind == "row") return RowFillValues::Kind::kRow;
  if (kind == "rows") return RowFillValues::Kind::kRows;
  throw std::invalid_argument("no fill kind '" + kind + "'");
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

std::shared_ptr<const RowTable> RowsOf(const BoundTensor& self) {
  return self.checkpoint->RowsOf(self.index);
}

// Whether some rows cannot be read.
bool HasRowErrors(const BoundTensor& self) {
  const GilReleased released;
  return RowsOf(self)->layout.has_errors;
}

// Copies rows to `out`, or, if that is None, to a new array, and returns it.
py::array Take(const BoundTensor& self, const py::array& ids, const py::object& out,
               const std::string& fill_kind, const py::array& fill_values) {
  const RowIds row_ids = ToRowIds(ids);
  const RowFillValues fill{ParseFillKind(fill_kind), BytesOf(fill_values)};
  const int threads = self.checkpoint->threads();
  std::shared_ptr<const RowTable> rows;
  {
    const GilReleased released;
    rows = RowsOf(self);
    if (rows->layout.has_errors && out.is_none()) {
      // Raise before memory is allocated for rows that are not stored.
      CheckRows(*rows->checkpoint, rows->tensor, rows->layout, row_ids, fill.kind, threads);
    }
  }
  py::array result;
  if (out.is_none()) {
    Sizes shape(ids.shape(), ids.shape() + ids.ndim());
    const std::span<const int64_t> dims = rows->checkpoint->catalog().Shape(rows->tensor);
    shape.insert(shape.end(), dims.begin() + 1, dims.end());
    result = NewArray(self.dtype, shape);
  } else {
    result = py::reinterpret_borrow<py::array>(out);
  }
  const MutableByteSpan destination = Destination(result);
  const GilReleased released;
  GatherRows(*rows->checkpoint, rows->tensor, rows->layout, row_ids, fill, destination, threads);
  return result;
}

// Raises what Remap() would raise for the numbers.
void CheckRemap(const BoundTensor& self, const py::object& row_ids, uint64_t num_rows,
                const py::object& columns) {
  const Remapping remapping = RemappingOf(row_ids, num_rows, columns);
  const int threads = self.checkpoint->threads();
  const GilReleased released;
  const auto rows = RowsOf(self);
  RequireRemappable(*rows->checkpoint, rows->tensor, rows->layout, remapping, threads);
}

// The number of elements that the remapped table has and this tensor does not.
Int MissingCells(const OpenTensor& t, const py::object& row_ids, uint64_t num_rows,
                 const py::object& columns) {
  const Remapping remapping = RemappingOf(row_ids, num_rows, columns);
  const int threads = t.bound.checkpoint->threads();
  const GilReleased released;
  return {CountMissingCells(*t.checkpoint, t.tensor, remapping, threads)};
}

void Remap(const BoundTensor& self, const py::object& row_ids, uint64_t num_rows,
           const py::object& columns, const py::array& fill_values, bool fill_is_element,
           py::array out, uint64_t out_stride) {
  const Remapping remapping = RemappingOf(row_ids, num_rows, columns);
  const CellFillValues fill{
      fill_is_element ? CellFillValues::Kind::kElement : CellFillValues::Kind::kCells,
      BytesOf(fill_values)};
  const MutableByteSpan destination = Destination(out);
  const int threads = self.checkpoint->threads();
  const GilReleased released;
  const auto rows = RowsOf(self);
  RemapTable(*rows->checkpoint, rows->tensor, rows->layout, remapping, fill, destination,
             out_stride, threads);
}

// Bytes of a row. Raises what streaming the rows would raise before it reads.
Int RowSize(const OpenTensor& t) {
  const GilReleased released;
  return {RowReader(*t.checkpoint, t.tensor, {}).row_size()};
}

// ---- Byte ranges: what a read touches

constexpr py::ssize_t kRangeColumns = 3;  // number of the file, offset, size

RangeArray ToArray(const std::vector<FileRange>& ranges) {
  RangeArray array({static_cast<py::ssize_t>(ranges.size()), kRangeColumns});
  uint64_t* to = array.mutable_data();
  for (const FileRange& range : ranges) {
    *to++ = range.file;
    *to++ = range.offset;
    *to++ = range.size;
  }
  return array;
}

RangeArray BoxRanges(const OpenTensor& t, const Sizes& offset, const Sizes& lengths) {
  const Box box = BoxOf(t, offset, lengths);
  std::vector<FileRange> ranges;
  {
    const GilReleased released;
    ranges = RangesOfBox(*t.checkpoint, t.tensor, box);
  }
  return ToArray(ranges);
}

RangeArray RowRanges(const OpenTensor& t, const RowArray& rows) {
  const std::span<const int64_t> shape = t.shape();
  if (shape.empty()) throw std::invalid_argument("a scalar has no rows");
  const std::span<const int64_t> ids(rows.data(), static_cast<size_t>(rows.size()));
  for (const int64_t id : ids) {
    if (id < 0 || id >= shape[0]) throw std::out_of_range("no row " + std::to_string(id));
  }
  std::vector<FileRange> ranges;
  {
    const GilReleased released;
    ranges = RangesOfRows(*t.checkpoint, t.tensor, ids);
  }
  return ToArray(ranges);
}

py::dict Inspect(const OpenTensor& t, const RangeArray& array) {
  if (array.ndim() != 2 || array.shape(1) != kRangeColumns) {
    throw std::invalid_argument("ranges have three columns");
  }
  std::vector<FileRange> ranges;
  for (py::ssize_t i = 0; i < array.shape(0); ++i) {
    ranges.push_back({static_cast<uint32_t>(array.at(i, 0)), array.at(i, 1), array.at(i, 2)});
  }
  const RangeStats facts = [&] {
    const GilReleased released;
    return InspectRanges(*t.checkpoint, t.tensor, ranges);
  }();
  py::dict found;  // made by hand: "slices"_a = ... would raise RuntimeError without memory
  const auto set = [&](const char* key, uint64_t value) { found[key] = Int{value}; };
  set("slices", facts.num_slices);
  set("whole", facts.num_whole);
  set("verified", facts.num_verified);
  set("bytes", facts.num_bytes);
  set("touched", facts.num_touched);
  set("probed", facts.num_probed);
  set("resident", facts.num_resident);
  found["direct"] = py::bool_(facts.prefers_direct);
  return found;
}

}  // namespace

py::array NewBoxArray(const Checkpoint& checkpoint, const Tensor& tensor, const Box& box,
                      std::span<const int64_t> shape) {
  // Memory of this size is allocated only for elements that are known to be stored.
  constexpr uint64_t kLarge = uint64_t{1} << 20;
  if (Volume(box) >= kLarge / RequireKnownType(tensor).item_size) {
    const GilReleased released;
    RequireBox(checkpoint, tensor, box);
  }
  return NewArray(DtypeOf(static_cast<int32_t>(tensor.dtype)), shape);
}

py::object ArrayOrScalar(py::array array) {
  if (array.ndim() != 0) return array;
  return ScalarAt(static_cast<const uint8_t*>(array.data()), array.dtype());
}

py::object ReadWholeTensor(const BoundCheckpoint& bound, const Checkpoint& checkpoint,
                           const Tensor& tensor) {
  const std::span<const int64_t> shape = checkpoint.catalog().Shape(tensor);
  if (HasVariableSize(tensor.dtype)) {
    return ArrayOrScalar(ReadStringsIn(WholeBox(shape), bound, checkpoint, tensor));
  }
  if (!IsPlain(static_cast<int32_t>(tensor.dtype))) return py::none();
  return ReadNew(bound, checkpoint, tensor, WholeBox(shape), shape);
}

void RegisterTensor(py::module_& module) {
  NumpyInteger();
  py::class_<BoundTensor, std::shared_ptr<BoundTensor>>(module, "Tensor", py::is_final(),
                                                        MadeByCore())
      .def_readonly("name", &BoundTensor::name)
      .def_readonly("shape", &BoundTensor::shape)
      .def_readonly("dtype", &BoundTensor::dtype)
      .def_readonly("type_number", &BoundTensor::type_number)
      .def_property_readonly("index", [](const BoundTensor& self) { return Int{self.index}; })
      .def_property_readonly("checkpoint_id",
                             [](const BoundTensor& self) {
                               return Int{reinterpret_cast<uintptr_t>(self.checkpoint.get())};
                             })
      .def_property_readonly("verify",
                             [](const BoundTensor& self) { return self.checkpoint->verify(); })
      .def_property_readonly("threads",
                             [](const BoundTensor& self) { return self.checkpoint->threads(); })
      .def_property_readonly("io", Of(&ModeOf))
      .def_property_readonly("nbytes", Of(&NumBytes))
      .def_property_readonly("is_decoded", Of(&IsDecoded))
      .def("file_paths", Of(&FilePaths))
      .def("slices", Of(&Slices))
      .def("error", Of(&GetError))
      .def("view", Of(&View))
      .def("view_row", &ViewRow)
      .def("view_obstacle", Of(&ViewObstacle))
      .def("view_box", Of(&ViewBox))
      .def("locate_box", Of(&LocateBoxIn))
      .def("copy_on_write", Of(&CopyOnWrite))
      .def("copy_on_write_box", Of(&CopyOnWriteBox))
      .def("check_box", Of(&CheckBox))
      .def("read", Of(&Read))
      .def("read_whole", Of(&ReadWhole))
      .def("read_row", &ReadRow)
      .def("read_string_slice", Of(&ReadStringSlice))
      .def("read_string_box", Of(&ReadStringBox))
      .def("read_string_rows", Of(&ReadStringRows))
      .def_property_readonly("has_row_errors", &HasRowErrors)
      .def("take", &Take)
      .def("check_remap", &CheckRemap)
      .def("missing_cells", Of(&MissingCells))
      .def("remap", &Remap)
      .def("row_size", Of(&RowSize))
      .def("ranges_of_box", Of(&BoxRanges))
      .def("ranges_of_rows", Of(&RowRanges))
      .def("inspect_ranges", Of(&Inspect));
}

}  // namespace tensorbundle
