// SPDX-License-Identifier: Apache-2.0
// TensorbundleMapV1: boxes of one tensor as mappings.
#include "tensorflow_op/map_op.h"

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/mapping.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/verify.h"
#include "tensorflow_op/slice_spec.h"
#include "tensorflow_op/verify_op.h"

namespace tensorbundle::op {
namespace {

// The alignment that TensorFlow requires of a tensor's address.
constexpr uint64_t kTensorAlignment = 64;

using Owner = std::shared_ptr<const Mapping>;

void ReleaseMapping(void*, size_t, void* owner) { delete static_cast<Owner*>(owner); }

std::string MessagePrefix(const OpenTensor& source) {
  return "tensor " + EscapeBytes(source.tensor->name) + " cannot be mapped: ";
}

// Returns the reason why the range cannot be mapped, or "".
std::string UnmappableReason(const OpenTensor& source, const BoxLocation& location) {
  if (!location) {
    return MessagePrefix(source) + ToString(location.reason) + "; use mode=\"copy\"";
  }
  const FileRange& range = location.range;
  if (range.offset % kTensorAlignment == 0) return "";
  return MessagePrefix(source) + "it is at offset " + std::to_string(range.offset) + " of " +
         source.checkpoint->catalog().files[range.file] + ", which is not a multiple of " +
         std::to_string(kTensorAlignment) +
         "; rewrite the checkpoint with `tensorbundle align`, or use mode=\"copy\"";
}

}  // namespace

TensorPtr MapBox(const OpenTensor& source, const Box& box) {
  if (box.empty() || Volume(box) == 0) {
    throw OpError(Code::kInvalidArgument, MessagePrefix(source) + "it has no rows");
  }
  const BoxLocation location = LocateBox(*source.checkpoint, *source.tensor, box);
  if (const std::string reason = UnmappableReason(source, location); !reason.empty()) {
    throw OpError(Code::kInvalidArgument, reason);
  }
  const FileRange& range = location.range;
  const uint64_t row_size = range.size / static_cast<uint64_t>(box[0].length);
  auto owner = std::make_unique<Owner>(Mapping::CopyOnWrite(
      source.checkpoint->files().Get(range.file), range.offset, range.size, row_size));
  std::vector<int64_t> dims = Lengths(box);
  ++dims[0];
  TensorPtr tensor(Tf().NewTensor(static_cast<TypeNumber>(source.tensor->dtype), dims.data(),
                                  static_cast<int>(dims.size()), (*owner)->writable_data(),
                                  range.size + row_size, &ReleaseMapping, owner.get()));
  owner.release();  // the buffer owns it now, also if NewTensor() failed
  if (tensor == nullptr) {
    throw OpError(Code::kUnimplemented,
                  MessagePrefix(source) + "TensorFlow has no tensors of this type");
  }
  return tensor;
}

namespace {

void WriteInt64s(const Run& run, int index, std::span<const int64_t> values) {
  const std::vector<int64_t> dims = {static_cast<int64_t>(values.size())};
  const TensorPtr out = run.Allocate(index, static_cast<TypeNumber>(DataType::kInt64), dims);
  std::memcpy(MutableBytesOf(out.get()).data(), values.data(), values.size_bytes());
}

// One op maps all boxes that one task needs of a tensor: creating and optimizing an op costs more
// than mapping a box. Each value has one extra row (see MapBox()), so the op also outputs the
// arguments of the `Slice` ops that remove it. As constants they would be half of the graph.
class MapKernel {
 public:
  explicit MapKernel(const Attributes& attributes)
      : prefix_(attributes.Path("prefix")),
        name_(attributes.String("tensor")),
        specs_(attributes.Strings("slice_specs")),
        type_(attributes.Type("dtype")),
        verify_(attributes.String("verify") == "full"),
        threads_(attributes.Int("threads")) {
    if (attributes.Int("N") != static_cast<int64_t>(specs_.size())) {
      throw OpError(Code::kInvalidArgument, "N is " + std::to_string(attributes.Int("N")) +
                                                ", but slice_specs are " +
                                                std::to_string(specs_.size()));
    }
  }

  void Compute(const Run& run) const {
    const OpenTensor source = Open(prefix_, name_, type_, IoMode::kPread);
    std::vector<Box> boxes;
    for (const std::string& spec : specs_) {
      boxes.push_back(ParseSliceSpec(spec, name_, source.shape()));
    }
    std::vector<TensorPtr> values;
    for (const Box& box : boxes) values.push_back(MapBox(source, box));
    if (verify_) Check(source, boxes);
    const int count = static_cast<int>(boxes.size());
    for (int i = 0; i < count; ++i) run.SetOutput(i, values[i].get());
    WriteInt64s(run, count, std::vector<int64_t>(source.shape().size(), 0));
    for (int i = 0; i < count; ++i) WriteInt64s(run, count + 1 + i, Lengths(boxes[i]));
  }

 private:
  void Check(const OpenTensor& source, const std::vector<Box>& boxes) const {
    std::vector<PartialChecksum> parts;
    for (const Box& box : boxes) {
      const std::vector<PartialChecksum> unread =
          UnreadSlices(*source.checkpoint, *source.tensor, box);
      parts.insert(parts.end(), unread.begin(), unread.end());
    }
    VerifyPartialChecksums(source, parts, threads_);
  }

  const std::string prefix_;
  const std::string name_;
  const std::vector<std::string> specs_;
  const TypeNumber type_;
  const bool verify_;
  const int64_t threads_;
};

}  // namespace

void RegisterMapOp() {
  RegisterOpAndKernel<MapKernel>({
      "TensorbundleMapV1",
      {"prefix: string", "tensor: string", "slice_specs: list(string)", "dtype: type",
       "verify: {'full', 'none'} = 'full'", "threads: int >= 0 = 0", "N: int >= 1"},
      {},
      {"values: N * dtype", "begin: int64", "sizes: N * int64"},
      OutputShapes::kUnknown,
  });
}

}  // namespace tensorbundle::op
