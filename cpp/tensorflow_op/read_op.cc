// SPDX-License-Identifier: Apache-2.0
// TensorbundleReadV1: a box of a tensor, copied to a tensor that TensorFlow allocates.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/read_op.h"
#include "tensorflow_op/slice_spec.h"
#include "tensorflow_op/verify_ledger.h"
#include "tensorflow_op/verify_op.h"

namespace tensorbundle::op {

void ReadStringBox(const OpenTensor& source, const Box& box, bool verify, TF_Tensor* out) {
  const MutableByteSpan strings = MutableBytesOf(out);
  if (Tf().StringCopy == nullptr || strings.size() != Volume(box) * kStringItemSize) {
    throw OpError(Code::kUnimplemented, "tensor " + EscapeBytes(source.tensor->name) +
                                            " holds strings, and this TensorFlow does not export "
                                            "TF_StringCopy; restore it with RestoreV2");
  }
  if (strings.empty()) return;
  const Checkpoint& checkpoint = *source.checkpoint;
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), *source.tensor, box)) {
    const StringElements elements = ReadStrings(checkpoint, *source.tensor, *overlap.slice, verify);
    const CopyLayout layout(overlap.slice_box, box, overlap.intersection, /*item_size=*/1);
    layout.ForEach(0, layout.count(), [&](const CopyLayout::Span& span) {
      for (uint64_t i = 0; i < layout.span_size(); ++i) {
        const std::string_view text = elements[span.source + i];
        uint8_t* out_item = strings.data() + (span.destination + i) * kStringItemSize;
        Tf().StringCopy(reinterpret_cast<TF_TString*>(out_item), text.data(), text.size());
      }
    });
  }
}

namespace {

enum class Verify {
  kFull,   // compares the checksum of every stored slice that the box intersects
  kParts,  // outputs partial checksums for TensorbundleVerifyV1
  kLazy,   // compares the checksums of the slices that are read whole
  kNone
};

Verify VerifyOf(const std::string& word) {
  if (word == "full") return Verify::kFull;
  if (word == "parts") return Verify::kParts;
  return word == "lazy" ? Verify::kLazy : Verify::kNone;  // the op definition allows no other value
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
    RequireBox(*source.checkpoint, *source.tensor, box);  // before memory is allocated for it
    std::vector<PartialChecksum> parts;
    if (HasVariableSize(source.tensor->dtype)) {
      CopyStrings(run, source, box);
    } else {
      Copy(run, source, box, &parts);
    }
    if (verify_ != Verify::kParts) parts.clear();
    WritePartialChecksums(run, 1, parts);
  }

 private:
  // A string slice has one checksum over all elements, so it is compared while reading.
  void CopyStrings(const Run& run, const OpenTensor& source, const Box& box) const {
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
      *parts = ReadBoxWithChecksums(checkpoint, *source.tensor, box, bytes,
                                    {threads, /*verify=*/false, /*fresh=*/true});
      if (verify_ != Verify::kFull) return;
      VerifyPartialChecksums(source, *parts, threads_);
      const bool is_verified_apart = std::any_of(
          parts->begin(), parts->end(), [](const PartialChecksum& part) { return part.size == 0; });
      if (is_verified_apart) ReadAgainIfRewritten(source, box, bytes, threads);
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
