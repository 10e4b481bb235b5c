// SPDX-License-Identifier: Apache-2.0
// TensorbundleVerifyV1: compares what TensorbundleReadV1 read of a tensor with the stored
// checksums.
#include <string>
#include <vector>

#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/verify.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/compare_parts.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/parts_tensor.h"

namespace tensorbundle::op {
namespace {

class VerifyKernel {
 public:
  explicit VerifyKernel(const Attributes& attributes)
      : prefix_(attributes.Path("prefix")),
        name_(attributes.String("tensor")),
        type_(attributes.Type("dtype")) {}

  // Without inputs, every slice of the tensor is read and compared; else those that parts name.
  void Compute(const Run& run) const {
    const OpenTensor source = Open(prefix_, name_, type_, IoMode::kPread);
    std::vector<PartialChecksum> parts;
    for (int input = 0; input < run.num_inputs(); ++input) {
      AppendParts(run.Input(input).get(), &parts);
    }
    if (run.num_inputs() == 0) {
      RequireBox(*source.checkpoint, *source.tensor, WholeBox(source.shape()));
      parts = UnreadSlices(*source.tensor);
    }
    CompareParts(source, parts, 0);
    const TensorPtr ok = run.Allocate(0, static_cast<TypeNumber>(DataType::kBool), {});
    MutableBytesOf(ok.get())[0] = 1;
  }

 private:
  const std::string prefix_;
  const std::string name_;
  const TypeNumber type_;
};

}  // namespace

void RegisterVerifyOp() {
  RegisterOpAndKernel<VerifyKernel>({
      "TensorbundleVerifyV1",
      {"prefix: string", "tensor: string", "dtype: type", "N: int >= 0"},
      {"parts: N * int64"},
      {"ok: bool"},
      OutputShapes::kScalar,
  });
}

}  // namespace tensorbundle::op
