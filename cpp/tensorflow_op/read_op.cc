// SPDX-License-Identifier: Apache-2.0
// TensorbundleReadV1: a tensor of a checkpoint, or a part of one, in memory of TensorFlow's.
#include <string>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/read/read_box.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/compare_parts.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/parts_tensor.h"
#include "tensorflow_op/slice_spec.h"
#include "tensorflow_op/string_tensor.h"

namespace tensorbundle::op {
namespace {

enum class Verify {
  kFull,   // every stored slice that is touched, before there is an output
  kParts,  // say what was read, for TensorbundleVerifyV1
  kLazy,   // slices that are read whole
  kNone
};

Verify VerifyOf(const std::string& word) {
  if (word == "full") return Verify::kFull;
  if (word == "parts") return Verify::kParts;
  return word == "lazy" ? Verify::kLazy : Verify::kNone;  // the op's definition allows no other
}

class ReadKernel {
 public:
  explicit ReadKernel(const Attributes& attributes)
      : prefix_(attributes.Path("prefix")),
        name_(attributes.String("tensor")),
        spec_(attributes.String("slice_spec")),
        type_(attributes.Type("dtype")),
        verify_(VerifyOf(attributes.String("verify"))),
        threads_(attributes.Int("threads")) {}

  void Compute(const Run& run) const {
    const OpenTensor source = Open(prefix_, name_, type_, IoMode::kPread);
    const Box box = ParseSliceSpec(spec_, name_, source.shape());
    RequireBox(*source.checkpoint, *source.tensor, box);  // before memory is taken for it
    std::vector<PartialChecksum> parts;
    if (HasVariableSize(source.tensor->dtype)) {
      ReadStrings(run, source, box);
    } else {
      Copy(run, source, box, &parts);
    }
    if (verify_ != Verify::kParts) parts.clear();
    WriteParts(run, 1, parts);
  }

 private:
  // Strings know their checksums only whole, and are checked as they are read.
  void ReadStrings(const Run& run, const OpenTensor& source, const Box& box) const {
    if (source.tensor->dtype != DataType::kString) {
      throw OpError(Code::kUnimplemented,
                    "tensor_name = " + name_ + "; type " + TypeText(type_) + " is not supported");
    }
    const TensorPtr out = run.Allocate(0, type_, Lengths(box));
    ReadStringBox(source, box, verify_ != Verify::kNone, out.get());
  }

  void Copy(const Run& run, const OpenTensor& source, const Box& box,
            std::vector<PartialChecksum>* parts) const {
    const uint64_t size = Volume(box) * RequireKnownType(*source.tensor).item_size;
    const TensorPtr out = run.Allocate(0, type_, Lengths(box));
    const MutableByteSpan bytes = MutableBytesOf(out.get());
    if (bytes.size() != size) {
      throw OpError(Code::kUnimplemented, "tensor_name = " + name_ + "; " + std::to_string(size) +
                                              " stored bytes do not fit type " + TypeText(type_));
    }
    const int threads = ThreadsFor(threads_, size);
    const Checkpoint& checkpoint = *source.checkpoint;
    if (verify_ == Verify::kFull || verify_ == Verify::kParts) {
      *parts = ReadBoxInParts(checkpoint, *source.tensor, box, bytes,
                              {threads, /*verify=*/false, /*fresh=*/true});
      if (verify_ == Verify::kFull) CompareParts(source, *parts, threads_);
    } else {
      ReadBox(checkpoint, *source.tensor, box, bytes,
              {threads, verify_ == Verify::kLazy, /*fresh=*/true});
    }
  }

  const std::string prefix_;
  const std::string name_;
  const std::string spec_;
  const TypeNumber type_;
  const Verify verify_;
  const int64_t threads_;
};

}  // namespace

void RegisterReadOp() {
  RegisterOpAndKernel<ReadKernel>({
      "TensorbundleReadV1",
      {"prefix: string", "tensor: string", "slice_spec: string = ''", "dtype: type",
       "verify: {'full', 'parts', 'lazy', 'none'} = 'full'", "threads: int >= 0 = 0"},
      {},
      {"value: dtype", "parts: int64"},
      OutputShapes::kUnknown,
  });
}

}  // namespace tensorbundle::op
