// SPDX-License-Identifier: Apache-2.0
// TensorbundleReadV1: a tensor of a checkpoint, or a part of one.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/base/checked.h"
#include "tensorbundle/view/piece_parts.h"
#include "tensorbundle/view/read_box.h"
#include "tensorflow_op/mapped_tensor.h"
#include "tensorflow_op/open_tensor.h"
#include "tensorflow_op/parts_tensor.h"
#include "tensorflow_op/registration.h"
#include "tensorflow_op/slice_spec.h"
#include "tensorflow_op/string_tensor.h"
#include "tensorflow_op/threads.h"

namespace tensorbundle::op {
namespace {

enum class Mode { kCopy, kMap, kAuto };

enum class Verify {
  kFull,   // every stored piece that is touched, before there is an output
  kParts,  // say what was read, for TensorbundleVerifyV1
  kLazy,   // pieces that are read whole
  kNone
};

template <typename Choice>
Choice Choose(const char* attribute, const std::string& word,
              std::initializer_list<std::pair<const char*, Choice>> choices) {
  std::string expected;
  for (const auto& [name, choice] : choices) {
    if (word == name) return choice;
    expected += std::string(expected.empty() ? "\"" : ", \"") + name + "\"";
  }
  throw OpError(Code::kInvalidArgument,
                std::string(attribute) + " is \"" + word + "\", expected one of " + expected);
}

class ReadKernel {
 public:
  explicit ReadKernel(const Attributes& attributes)
      : prefix_(attributes.String("prefix")),
        name_(attributes.String("tensor")),
        spec_(attributes.String("slice_spec")),
        type_(attributes.Type("dtype")),
        mode_(Choose<Mode>("mode", attributes.String("mode"),
                           {{"copy", Mode::kCopy}, {"map", Mode::kMap}, {"auto", Mode::kAuto}})),
        verify_(Choose<Verify>("verify", attributes.String("verify"),
                               {{"full", Verify::kFull},
                                {"parts", Verify::kParts},
                                {"lazy", Verify::kLazy},
                                {"none", Verify::kNone}})),
        threads_(attributes.Int("threads")) {}

  void Compute(const Run& run) const {
    const OpenTensor source = Open(prefix_, name_, type_, IoMode::kPread);
    const Box box = ParseSliceSpec(spec_, name_, source.shape());
    std::vector<PiecePart> parts;
    if (HasVariableSize(source.tensor->dtype)) {
      ReadStrings(run, source, box);
    } else if (IsMapped(source, box)) {
      Map(run, source, box, &parts);
    } else {
      Copy(run, source, box, &parts);
    }
    if (verify_ != Verify::kParts) parts.clear();
    WriteParts(run, 1, parts);
  }

 private:
  bool IsMapped(const OpenTensor& source, const Box& box) const {
    if (mode_ == Mode::kCopy || box.empty() || Volume(box) == 0) return false;
    return mode_ == Mode::kMap || WhyNotMapped(source, box).empty();
  }

  // Strings know their checksums only whole, and are checked as they are read.
  void ReadStrings(const Run& run, const OpenTensor& source, const Box& box) const {
    if (source.tensor->dtype != DataType::kString) {
      throw OpError(Code::kUnimplemented,
                    "tensor_name = " + name_ + "; type " + TypeText(type_) + " is not supported");
    }
    std::vector<int64_t> dims;
    for (const Extent& extent : box) dims.push_back(extent.length);
    const TensorPtr out = run.Allocate(0, type_, dims);
    ReadStringBox(source, box, verify_ != Verify::kNone, out.get());
  }

  void Map(const Run& run, const OpenTensor& source, const Box& box,
           std::vector<PiecePart>* parts) const {
    const TensorPtr out = MapBox(source, box);
    if (verify_ == Verify::kFull || verify_ == Verify::kParts) {
      *parts = UnreadPieces(*source.checkpoint, *source.tensor, box);
    }
    if (verify_ == Verify::kFull) CheckParts(source, *parts);
    run.SetOutput(0, out.get());
  }

  void Copy(const Run& run, const OpenTensor& source, const Box& box,
            std::vector<PiecePart>* parts) const {
    std::vector<int64_t> dims;
    for (const Extent& extent : box) dims.push_back(extent.length);
    const bool pads = mode_ != Mode::kCopy && !dims.empty();  // as the mapping would
    const uint64_t size = Volume(box) * RequireKnownType(*source.tensor).item_size;
    if (pads) ++dims[0];
    const TensorPtr out = run.Allocate(0, type_, dims);
    const MutableByteSpan bytes = MutableBytesOf(out.get());
    if (bytes.size() < size || (!pads && bytes.size() != size)) {
      throw OpError(Code::kInternal, "tensor_name = " + name_ + "; " + std::to_string(size) +
                                         " stored bytes do not fit type " + TypeText(type_));
    }
    std::memset(bytes.data() + size, 0, bytes.size() - size);
    const int threads = ThreadsFor(threads_, size);
    const Checkpoint& checkpoint = *source.checkpoint;
    if (verify_ == Verify::kFull || verify_ == Verify::kParts) {
      *parts = ReadBoxInParts(checkpoint, *source.tensor, box, bytes.first(size),
                              {threads, /*verify=*/false, /*fresh=*/true});
      if (verify_ == Verify::kFull) CheckParts(source, *parts);
    } else {
      ReadBox(checkpoint, *source.tensor, box, bytes.first(size),
              {threads, verify_ == Verify::kLazy, /*fresh=*/true});
    }
  }

  void CheckParts(const OpenTensor& source, const std::vector<PiecePart>& parts) const {
    uint64_t size = 0;
    for (const Piece& piece : source.checkpoint->catalog().Pieces(*source.tensor)) {
      size += piece.size;
    }
    VerifyParts(*source.checkpoint, *source.tensor, parts, ThreadsFor(threads_, size));
  }

  const std::string prefix_;
  const std::string name_;
  const std::string spec_;
  const TypeNumber type_;
  const Mode mode_;
  const Verify verify_;
  const int64_t threads_;
};

}  // namespace

void RegisterReadOp() {
  RegisterOpAndKernel<ReadKernel>({
      "TensorbundleReadV1",
      {"prefix: string", "tensor: string", "slice_spec: string = ''", "dtype: type",
       "mode: {'copy', 'map', 'auto'} = 'copy'",
       "verify: {'full', 'parts', 'lazy', 'none'} = 'full'", "threads: int >= 0 = 0"},
      {},
      {"value: dtype", "parts: int64"},
      OutputShapes::kUnknown,
  });
}

}  // namespace tensorbundle::op
