// SPDX-License-Identifier: Apache-2.0
// TensorbundleMapV1: slices of a tensor whose memory is the checkpoint's file.
#include <cstring>
#include <string>
#include <vector>

#include "tensorbundle/read/verify.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/compare_parts.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/mapped_tensor.h"
#include "tensorflow_op/slice_spec.h"

namespace tensorbundle::op {
namespace {

void WriteInt64s(const Run& run, int index, std::span<const int64_t> values) {
  const std::vector<int64_t> dims = {static_cast<int64_t>(values.size())};
  const TensorPtr out = run.Allocate(index, static_cast<TypeNumber>(DataType::kInt64), dims);
  std::memcpy(MutableBytesOf(out.get()).data(), values.data(), values.size_bytes());
}

// One op for all slices of a tensor that one task wants: an op costs more to make and to optimize
// than a mapping costs to map. The outputs are one row too long (mapped_tensor.h), so it also tells
// where the slices begin and how long they are: as constants these would be half of the graph.
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
      const std::vector<PartialChecksum> met =
          UnreadSlices(*source.checkpoint, *source.tensor, box);
      parts.insert(parts.end(), met.begin(), met.end());
    }
    CompareParts(source, parts, threads_);
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
