// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/mapped_tensor.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/io/mapping.h"
#include "tensorbundle/read/locate.h"

namespace tensorbundle::op {
namespace {

using Owner = std::shared_ptr<const Mapping>;

void ReleaseMapping(void*, size_t, void* owner) { delete static_cast<Owner*>(owner); }

std::string Refusal(const OpenTensor& source) {
  return "tensor " + EscapeBytes(source.tensor->name) + " cannot be mapped: ";
}

std::string WhyNot(const OpenTensor& source, const StoredRun& run) {
  if (run.why_not != nullptr) return Refusal(source) + run.why_not + "; use mode=\"copy\"";
  if (run.offset % kTensorAlignment == 0) return "";
  return Refusal(source) + "it lies at offset " + std::to_string(run.offset) + " of " +
         source.checkpoint->catalog().files[run.file] + ", which is no multiple of " +
         std::to_string(kTensorAlignment) +
         "; rewrite the checkpoint with `tensorbundle align`, or use mode=\"copy\"";
}

}  // namespace

TensorPtr MapBox(const OpenTensor& source, const Box& box) {
  if (box.empty() || Volume(box) == 0) {
    throw OpError(Code::kInvalidArgument, Refusal(source) + "it has no rows");
  }
  const StoredRun run = LocateBox(*source.checkpoint, *source.tensor, box);
  if (const std::string why_not = WhyNot(source, run); !why_not.empty()) {
    throw OpError(Code::kInvalidArgument, why_not);
  }
  const uint64_t row_size = run.size / static_cast<uint64_t>(box[0].length);
  auto owner = std::make_unique<Owner>(Mapping::CopyOnWrite(
      source.checkpoint->files().Get(run.file), run.offset, run.size, row_size));
  std::vector<int64_t> dims = Lengths(box);
  ++dims[0];
  TensorPtr tensor(Tf().NewTensor(static_cast<TypeNumber>(source.tensor->dtype), dims.data(),
                                  static_cast<int>(dims.size()), (*owner)->writable_data(),
                                  run.size + row_size, &ReleaseMapping, owner.get()));
  owner.release();  // now held by the tensor's buffer, even if there is no tensor
  if (tensor == nullptr) {
    throw OpError(Code::kUnimplemented, Refusal(source) + "TensorFlow has no such tensors");
  }
  return tensor;
}

}  // namespace tensorbundle::op
