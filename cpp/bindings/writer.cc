// SPDX-License-Identifier: Apache-2.0
// The classes _core.Writer and _core.SliceWriter: a checkpoint that is being written, and a stored
// slice of it that arrives in parts.
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/checkpoint.h"
#include "bindings/progress.h"
#include "bindings/pybind.h"
#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/write/bundle_writer.h"
#include "tensorbundle/write/slice_copier.h"

namespace tensorbundle {
namespace {

using Shape = std::vector<int64_t>;

// A writer that is open, published or abandoned.
class BoundWriter : public HeldByPython {
 public:
  BoundWriter(const std::string& prefix, const BundleWriterOptions& options)
      : writer_(std::make_shared<BundleWriter>(prefix, options)) {}

  // Returns the writer, which the caller may use without the GIL. Call it with the GIL.
  std::shared_ptr<BundleWriter> open() const {
    if (writer_ == nullptr) throw std::invalid_argument("the writer is closed");
    return writer_;
  }

  void Publish() {
    const std::shared_ptr<BundleWriter> writer = open();
    const GilReleased released;
    writer->Publish();
  }
  // Removes all files that were not published.
  void Close() { writer_.reset(); }
  bool closed() const { return writer_ == nullptr; }

 private:
  std::shared_ptr<BundleWriter> writer_;
};

// Returns the tensor and the box of a slice. `offset` is None for a whole tensor.
SliceInfo InfoOf(std::string name, int32_t type_number, Shape shape,
                 const std::optional<Shape>& offset, const std::optional<Shape>& slice_shape) {
  SliceInfo info{std::move(name), static_cast<DataType>(type_number), std::move(shape), {}};
  if (!CheckedVolume(info.dims)) throw std::invalid_argument("the shape is negative or too large");
  if (!offset) return info;
  const Shape& starts = *offset;
  const Shape& lengths = slice_shape.value();
  if (starts.size() != info.dims.size() || lengths.size() != info.dims.size()) {
    throw std::invalid_argument("the slice has another rank than the tensor");
  }
  Box box;
  for (size_t axis = 0; axis < starts.size(); ++axis) {
    box.push_back({starts[axis], lengths[axis]});
  }
  if (!NormalizeSlice(box, info.dims)) {
    throw std::invalid_argument(DescribeInvalidSlice(box, info.dims));
  }
  // TensorFlow stores a slice that is the whole tensor as a tensor without slices.
  if (box != WholeBox(info.dims)) info.box = std::move(box);
  return info;
}

uint64_t NumElements(const SliceInfo& info) {
  return info.box ? Volume(*info.box) : *CheckedVolume(info.dims);
}

// Writes a dense slice that is in memory.
void Add(const BoundWriter& self, std::string name, int32_t type_number, Shape shape,
         const std::optional<Shape>& offset, const std::optional<Shape>& slice_shape,
         const py::array& array) {
  const SliceInfo info =
      InfoOf(std::move(name), type_number, std::move(shape), offset, slice_shape);
  if ((array.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument("the array is not C-contiguous");
  }
  const ByteSpan bytes = BytesOf(array);
  const std::shared_ptr<BundleWriter> writer = self.open();
  const GilReleased released;
  writer->Reserve(info);
  const Placement place = writer->Allocate(bytes.size());
  writer->Record(info, place, crc32c::Mask(writer->Write(place, 0, bytes)));
}

// Writes a slice of strings, which are a list of bytes and str; a str is written as UTF-8.
void AddStrings(const BoundWriter& self, std::string name, Shape shape,
                const std::optional<Shape>& offset, const std::optional<Shape>& slice_shape,
                const py::list& strings) {
  const SliceInfo info = InfoOf(std::move(name), static_cast<int32_t>(DataType::kString),
                                std::move(shape), offset, slice_shape);
  std::vector<ByteSpan> spans;
  spans.reserve(strings.size());
  for (const py::handle each : strings) {
    char* bytes = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_Check(each.ptr())) {
      PyBytes_AsStringAndSize(each.ptr(), &bytes, &size);
    } else if (const char* text = PyUnicode_AsUTF8AndSize(each.ptr(), &size)) {
      bytes = const_cast<char*>(text);
    } else {
      throw py::error_already_set();
    }
    spans.emplace_back(reinterpret_cast<const uint8_t*>(bytes), static_cast<size_t>(size));
  }
  if (spans.size() != NumElements(info)) throw std::invalid_argument("wrong number of strings");
  const std::shared_ptr<BundleWriter> writer = self.open();
  const GilReleased released;
  writer->Reserve(info);
  ElementsChecksum checksum(Encoding::kStrings, false);
  const std::string lengths = EncodeStringLengths(spans, &checksum);
  uint64_t size = lengths.size();
  for (const ByteSpan span : spans) size += span.size();
  const Placement place = writer->Allocate(size);
  writer->Write(place, 0, AsBytes(lengths));
  uint64_t at = lengths.size();
  for (const ByteSpan span : spans) {
    writer->Write(place, at, span);
    checksum.AddPayload(span);
    at += span.size();
  }
  writer->Record(info, place, crc32c::Mask(checksum.value()));
}

// A dense slice that arrives in parts, in order.
class SliceWriter : public HeldByPython {
 public:
  SliceWriter(std::shared_ptr<BoundWriter> owner, SliceInfo info, uint64_t size)
      : owner_(std::move(owner)), info_(std::move(info)) {
    const std::shared_ptr<BundleWriter> writer = owner_->open();
    writer->Reserve(info_);
    place_ = writer->Allocate(size);
  }
  SliceWriter(const SliceWriter&) = delete;
  SliceWriter& operator=(const SliceWriter&) = delete;

  // Writes the next bytes.
  void Append(const py::array& array) {
    if ((array.flags() & py::array::c_style) == 0) {
      throw std::invalid_argument("the array is not C-contiguous");
    }
    const ByteSpan bytes = BytesOf(array);
    const std::shared_ptr<BundleWriter> writer = owner_->open();
    if (is_done_) throw std::invalid_argument("the slice is complete");
    const GilReleased released;
    const uint32_t checksum = writer->Write(place_, written_, bytes);
    checksum_ = crc32c::Combine(checksum_, checksum, bytes.size());
    written_ += bytes.size();
  }

  void Finish() {
    if (written_ != place_.size) throw std::invalid_argument("the slice is not complete");
    if (is_done_) return;
    owner_->open()->Record(info_, place_, crc32c::Mask(checksum_));
    is_done_ = true;
  }

  Int left() const { return {place_.size - written_}; }

 private:
  std::shared_ptr<BoundWriter> owner_;
  SliceInfo info_;
  Placement place_;
  uint64_t written_ = 0;
  uint32_t checksum_ = 0;
  bool is_done_ = false;
};

std::shared_ptr<SliceWriter> Begin(const std::shared_ptr<BoundWriter>& self, std::string name,
                                   int32_t type_number, Shape shape,
                                   const std::optional<Shape>& offset,
                                   const std::optional<Shape>& slice_shape, uint64_t item_size) {
  SliceInfo info = InfoOf(std::move(name), type_number, std::move(shape), offset, slice_shape);
  const std::optional<uint64_t> size = CheckedMul(NumElements(info), item_size);
  if (!size) throw std::invalid_argument("the tensor is too large");
  return std::make_shared<SliceWriter>(self, std::move(info), *size);
}

// Copies tensors with their slices and checksums: [(tensor, new name), ...]. `done` bytes of
// `total` were reported before.
void Copy(const BoundWriter& self, const py::list& tensors, py::object callback, uint64_t done,
          uint64_t total) {
  std::vector<TensorCopy> copies;
  for (const py::handle each : tensors) {
    const auto [tensor, name] = each.cast<std::pair<py::object, std::string>>();
    const OpenTensor opened(tensor.cast<const BoundTensor&>());
    if (!CanCopySlices(*opened.checkpoint)) {
      throw std::invalid_argument("the tensor must be converted");
    }
    copies.push_back({opened.checkpoint, &opened.tensor, name});
  }
  const std::shared_ptr<BundleWriter> writer = self.open();
  Progress progress(std::move(callback), total);
  const GilReleased released;
  if (done > 0) progress.Add(done);
  CopyTensors(writer.get(), copies, [&](uint64_t bytes) { progress.Add(bytes); });
}

bool CanCopyTensor(const BoundTensor& tensor) {
  const OpenTensor opened(tensor);
  return CanCopySlices(*opened.checkpoint);
}

// Whether CopyRows() can copy a tensor.
bool CanCopyRows(const BoundTensor& tensor) {
  const OpenTensor opened(tensor);
  return CanCopySlices(*opened.checkpoint) &&
         RowRangeOffsets(opened.checkpoint->catalog(), opened.tensor).has_value();
}

// Writes the elements of tensors, in row-major order, to a file: [(tensor, offset in the file),
// ...].
void CopyRows(std::string path, int descriptor, const py::list& tensors, int threads,
              py::object callback) {
  const OutputFile to(std::move(path), descriptor);
  std::vector<SliceCopy> copies;
  uint64_t total = 0;
  for (const py::handle each : tensors) {
    const auto [tensor, start] = each.cast<std::pair<py::object, uint64_t>>();
    const OpenTensor opened(tensor.cast<const BoundTensor&>());
    const Catalog& catalog = opened.checkpoint->catalog();
    const std::optional<std::vector<uint64_t>> offsets = RowRangeOffsets(catalog, opened.tensor);
    if (!CanCopySlices(*opened.checkpoint) || !offsets) {
      throw std::invalid_argument("the tensor is not stored in rows");
    }
    const std::span<const StoredSlice> slices = catalog.Slices(opened.tensor);
    for (size_t i = 0; i < slices.size(); ++i) {
      copies.push_back(CopyOf(opened.checkpoint, opened.tensor, slices[i]));
      copies.back().to = &to;
      copies.back().to_offset = CheckedAdd(start, (*offsets)[i]).value();
      total += slices[i].size;
    }
  }
  Progress progress(std::move(callback), total);
  {
    const GilReleased released;
    CopySlices(copies, threads, [&](uint64_t bytes) { progress.Add(bytes); });
  }
  progress.Finish();
}

std::shared_ptr<BoundWriter> NewWriter(const std::string& prefix, int32_t shards,
                                       uint64_t alignment, bool overwrite, int threads) {
  auto writer = std::make_shared<BoundWriter>(
      prefix, BundleWriterOptions{shards, alignment, overwrite, threads});
  // TensorFlow's readers and tools expect a file of every shard.
  for (int32_t shard = 0; shard < shards; ++shard) writer->open()->CreateDataFile(shard);
  return writer;
}

}  // namespace

void RegisterWriter(py::module_& module) {
  module.def("can_copy_rows", &CanCopyRows);
  module.def("copy_rows", &CopyRows);
  py::class_<SliceWriter, std::shared_ptr<SliceWriter>>(module, "SliceWriter", py::is_final(),
                                                        MadeByCore())
      .def("append", &SliceWriter::Append)
      .def("finish", &SliceWriter::Finish)
      .def_property_readonly("left", &SliceWriter::left);
  py::class_<BoundWriter, std::shared_ptr<BoundWriter>>(module, "Writer", py::is_final(),
                                                        MadeByCore())
      .def_static("create", &NewWriter)
      .def("add", &Add)
      .def("add_strings", &AddStrings)
      .def("begin", &Begin)
      .def("copy", &Copy)
      .def_static("can_copy", &CanCopyTensor)
      .def("publish", &BoundWriter::Publish)
      .def("close", &BoundWriter::Close)
      .def_property_readonly("closed", &BoundWriter::closed);
}

}  // namespace tensorbundle
