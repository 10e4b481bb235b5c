// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/string_tensor.h"

#include <string_view>

#include "tensorbundle/base/error.h"
#include "tensorbundle/view/runs.h"
#include "tensorbundle/view/strings.h"
#include "tensorbundle/view/tiling.h"

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
  for (const PieceOverlap& overlap : CoverBox(checkpoint.catalog(), *source.tensor, box)) {
    const StringElements elements = ReadStrings(checkpoint, *source.tensor, *overlap.piece, verify);
    const RunLayout layout(overlap.piece_box, box, overlap.common, /*item_size=*/1);
    layout.ForEach(0, layout.count(), [&](const RunLayout::Run& run) {
      for (uint64_t i = 0; i < layout.run_size(); ++i) {
        const std::string_view text = elements[run.source + i];
        uint8_t* place = strings.data() + (run.destination + i) * kStringSize;
        Tf().StringCopy(reinterpret_cast<TF_TString*>(place), text.data(), text.size());
      }
    });
  }
}

}  // namespace tensorbundle::op
