// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/string_tensor.h"

#include <string_view>

#include "tensorbundle/base/error.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/slice_cover.h"

namespace tensorbundle::op {
namespace {

// sizeof(TF_TString), the same in every version.
constexpr size_t kStringSize = 24;

}  // namespace

void ReadStringBox(const OpenTensor& source, const Box& box, bool verify, TF_Tensor* out) {
  const MutableByteSpan strings = MutableBytesOf(out);
  if (Tf().StringCopy == nullptr || strings.size() != Volume(box) * kStringSize) {
    throw OpError(Code::kUnimplemented, "tensor " + EscapeBytes(source.tensor->name) +
                                            " is of strings, which this TensorFlow does not let us "
                                            "write; restore it with RestoreV2");
  }
  if (strings.empty()) return;
  const Checkpoint& checkpoint = *source.checkpoint;
  for (const SliceOverlap& overlap : FindOverlaps(checkpoint.catalog(), *source.tensor, box)) {
    const StringElements elements = ReadStrings(checkpoint, *source.tensor, *overlap.slice, verify);
    const CopyLayout layout(overlap.slice_box, box, overlap.intersection, /*item_size=*/1);
    layout.ForEach(0, layout.count(), [&](const CopyLayout::Span& run) {
      for (uint64_t i = 0; i < layout.span_size(); ++i) {
        const std::string_view text = elements[run.source + i];
        uint8_t* place = strings.data() + (run.destination + i) * kStringSize;
        Tf().StringCopy(reinterpret_cast<TF_TString*>(place), text.data(), text.size());
      }
    });
  }
}

}  // namespace tensorbundle::op
