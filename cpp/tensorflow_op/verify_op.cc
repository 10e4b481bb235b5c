// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/verify_op.h"

#include <cstring>
#include <limits>
#include <string>

#include "tensorbundle/read/verify.h"

namespace tensorbundle::op {
namespace {

constexpr int64_t kColumns = 4;
constexpr size_t kRowSize = kColumns * sizeof(int64_t);

PartialChecksum ChecksumOfRow(const int64_t (&row)[kColumns]) {
  for (const int64_t number : row) {
    if (number < 0) {
      throw OpError(Code::kInvalidArgument, "a partial checksum holds " + std::to_string(number));
    }
  }
  if (row[3] > std::numeric_limits<uint32_t>::max()) {
    throw OpError(Code::kInvalidArgument, std::to_string(row[3]) + " is not a CRC32C");
  }
  return {static_cast<uint64_t>(row[0]), static_cast<uint64_t>(row[1]),
          static_cast<uint64_t>(row[2]), static_cast<uint32_t>(row[3])};
}

class VerifyKernel {
 public:
  explicit VerifyKernel(const Attributes& attributes)
      : prefix_(attributes.Path("prefix")),
        name_(attributes.String("tensor")),
        type_(attributes.Type("dtype")) {}

  // Without inputs, reads and compares every stored slice of the tensor; with inputs, those that
  // the partial checksums refer to.
  void Compute(const Run& run) const {
    const OpenTensor source = Open(prefix_, name_, type_, IoMode::kPread);
    std::vector<PartialChecksum> parts;
    for (int input = 0; input < run.num_inputs(); ++input) {
      AppendPartialChecksums(run.Input(input).get(), &parts);
    }
    if (run.num_inputs() == 0) {
      RequireBox(*source.checkpoint, *source.tensor, WholeBox(source.shape()));
      parts = UnreadSlices(*source.tensor);
    }
    VerifyPartialChecksums(source, parts, 0);
    const TensorPtr ok = run.Allocate(0, static_cast<TypeNumber>(DataType::kBool), {});
    MutableBytesOf(ok.get())[0] = 1;
  }

 private:
  const std::string prefix_;
  const std::string name_;
  const TypeNumber type_;
};

}  // namespace

void WritePartialChecksums(const Run& run, int index, std::span<const PartialChecksum> parts) {
  const int64_t dims[] = {static_cast<int64_t>(parts.size()), kColumns};
  const TensorPtr tensor = run.Allocate(index, static_cast<TypeNumber>(DataType::kInt64), dims);
  uint8_t* out = MutableBytesOf(tensor.get()).data();
  for (const PartialChecksum& part : parts) {
    const int64_t row[kColumns] = {static_cast<int64_t>(part.slice),
                                   static_cast<int64_t>(part.offset),
                                   static_cast<int64_t>(part.size), part.crc};
    std::memcpy(out, row, kRowSize);
    out += kRowSize;
  }
}

void AppendPartialChecksums(const TF_Tensor* tensor, std::vector<PartialChecksum>* parts) {
  const std::vector<int64_t> dims = DimsOf(tensor);
  if (dims.size() != 2 || dims[1] != kColumns) {
    throw OpError(Code::kInvalidArgument, "parts have shape " + ShapeText(dims) +
                                              ", expected [n,4] from TensorbundleReadV1");
  }
  const uint8_t* in = BytesOf(tensor).data();
  for (int64_t i = 0; i < dims[0]; ++i, in += kRowSize) {
    int64_t row[kColumns];
    std::memcpy(row, in, kRowSize);
    parts->push_back(ChecksumOfRow(row));
  }
}

void VerifyPartialChecksums(const OpenTensor& source, std::span<const PartialChecksum> parts,
                            int64_t threads) {
  uint64_t size = 0;
  for (const StoredSlice& slice : source.checkpoint->catalog().Slices(*source.tensor)) {
    size += slice.size;
  }
  VerifyChecksums(*source.checkpoint, *source.tensor, parts, ThreadsFor(threads, size));
}

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
