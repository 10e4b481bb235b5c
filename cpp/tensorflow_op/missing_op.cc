// SPDX-License-Identifier: Apache-2.0
// TensorbundleMissingV1: the number of cells in a remapped table whose row or column is not in the
// old vocabulary.
#include <cstring>
#include <limits>
#include <string>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/bundle/data_type.h"
#include "tensorflow_op/join_cache.h"
#include "tensorflow_op/kernel.h"

namespace tensorbundle::op {
namespace {

class MissingKernel {
 public:
  explicit MissingKernel(const Attributes& attributes)
      : request_(JoinRequestOf(attributes)),
        offset_(attributes.Int("offset")),
        num_new_(attributes.Int("num_new")),
        cells_per_entry_(attributes.Int("cells_per_entry")),
        type_(attributes.Type("out_type")) {}

  void Compute(const Run& run) const {
    const JoinedIds joined = IdsOf(request_, offset_, num_new_);
    const auto missing = static_cast<uint64_t>(num_new_ - joined.CountPresent());
    const std::optional<uint64_t> cells =
        CheckedMul(missing, static_cast<uint64_t>(cells_per_entry_));
    const bool is_int32 = type_ == static_cast<TypeNumber>(DataType::kInt32);
    const auto limit = static_cast<uint64_t>(is_int32 ? std::numeric_limits<int32_t>::max()
                                                      : std::numeric_limits<int64_t>::max());
    if (!cells || *cells > limit) {
      throw OpError(Code::kInvalidArgument, std::to_string(missing) + " missing entries of " +
                                                std::to_string(cells_per_entry_) +
                                                " cells do not fit in " + TypeName());
    }
    const TensorPtr count = run.Allocate(0, type_, {});
    uint8_t* out = MutableBytesOf(count.get()).data();
    const auto narrow = static_cast<int32_t>(*cells);
    const auto wide = static_cast<int64_t>(*cells);
    if (is_int32) {
      std::memcpy(out, &narrow, sizeof(narrow));
    } else {
      std::memcpy(out, &wide, sizeof(wide));
    }
  }

 private:
  std::string TypeName() const { return DataTypeName(DataType{type_}); }

  const JoinRequest request_;
  const int64_t offset_;
  const int64_t num_new_;
  const int64_t cells_per_entry_;
  const TypeNumber type_;
};

}  // namespace

void RegisterMissingOp() {
  RegisterOpAndKernel<MissingKernel>({
      "TensorbundleMissingV1",
      {"new_vocab: string", "old_vocab: string", "new_size: int >= -1 = -1",
       "old_size: int >= -1 = -1", "offset: int >= 0 = 0", "num_new: int >= 0",
       "cells_per_entry: int >= 0 = 1", "out_type: {int32, int64} = DT_INT64"},
      {},
      {"count: out_type"},
      OutputShapes::kScalar,
  });
}

}  // namespace tensorbundle::op
