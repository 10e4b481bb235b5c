// SPDX-License-Identifier: Apache-2.0
// RestoreV2, TensorFlow's op, served by this library: all outputs of a node in one plan.
//
//   1. Open the checkpoint once, and find all tensors and boxes. Errors are those of TensorFlow.
//   2. Allocate the outputs.
//   3. Read them: large ones one after another, each by all threads; small ones in parallel.
//   4. Verify. A stored slice that is read whole is compared at once. A slice that is read in part
//      is verified by all ops together (verify_ledger.h).
//   5. Read again, with their checksums, elements that no checksum covers when they are read, if
//      their file may have changed since it was opened.
//
// Remote files (remote_files.h) are read by this thread alone, in the order of their bytes, and
// each op verifies what it reads: a slice that it reads in part is read whole, once.
//
// With the attribute _tensorbundle_mode="map" the outputs are mappings of the data file, with one
// extra row that the graph slices off (map_op.h). Scalars, empty boxes, elements of variable size
// and remote files are copied also then. kernel.h lists the other attributes.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/uffd_buffer.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/read/verify.h"
#include "tensorflow_op/checkpoint_cache.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/map_op.h"
#include "tensorflow_op/read_op.h"
#include "tensorflow_op/remote_files.h"
#include "tensorflow_op/slice_spec.h"
#include "tensorflow_op/variant_tensor.h"
#include "tensorflow_op/verify_ledger.h"

namespace tensorbundle::op {
namespace {

// Outputs from this size on are read by all threads, one output after another.
constexpr uint64_t kLargeOutput = uint64_t{8} << 20;

// Slices below this size are read again by each op that reads a part of them: that costs less than
// the ledger.
constexpr uint64_t kMinLedgerSlice = uint64_t{256} << 10;

// A part of a stored slice that an output reads, if the slice is verified by a ledger.
struct LedgerEntry {
  std::shared_ptr<SliceLedger> ledger;
  SliceLedger::Slice slice{};
  bool is_claimed = false;
  uint64_t offset = 0;  // of the claim
};

struct Output {
  OpenTensor source;
  Box box;
  TensorPtr tensor;
  MutableByteSpan bytes;
  bool is_verified_apart = false;  // another read verifies slices of it
};

// Releases the claims that were not deposited.
class Claims {
 public:
  Claims() = default;
  Claims(const Claims&) = delete;
  Claims& operator=(const Claims&) = delete;
  ~Claims() {
    for (const LedgerEntry& entry : entries_) {
      if (entry.is_claimed) entry.ledger->Release(entry.offset);
    }
  }

  void Add(const OpenTensor& source, const SliceOverlap& overlap, uint64_t item_size,
           const Box& box) {
    const SliceLedger::Slice slice{source, overlap.slice};
    LedgerEntry entry{LedgerOf(slice), slice};
    const CopyLayout layout(overlap.slice_box, box, overlap.intersection, item_size);
    if (layout.has_contiguous_source()) {
      entry.offset = layout.first().source;
      entry.is_claimed = entry.ledger->Claim(entry.offset, layout.size());
    }
    entries_.push_back(std::move(entry));
  }
  void AddNone() { entries_.emplace_back(); }

  // `checksums` has an element for each call of Add() and AddNone().
  void Deposit(const std::vector<PartialChecksum>& checksums) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (!std::exchange(entries_[i].is_claimed, false)) continue;
      entries_[i].ledger->Deposit(entries_[i].slice, entries_[i].offset, checksums.at(i).crc);
    }
  }

  // Returns the checksums of slices that no ledger verifies.
  std::vector<PartialChecksum> WithoutLedger(const std::vector<PartialChecksum>& checksums) const {
    std::vector<PartialChecksum> others;
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].ledger == nullptr) others.push_back(checksums.at(i));
    }
    return others;
  }

  // Whether some elements are not among the bytes whose checksum Deposit() and WithoutLedger()
  // take. To be called before Deposit().
  bool LeavesOut(const std::vector<PartialChecksum>& checksums) const {
    for (size_t i = 0; i < entries_.size(); ++i) {
      const LedgerEntry& entry = entries_[i];
      if (entry.ledger == nullptr ? checksums.at(i).size == 0 : !entry.is_claimed) return true;
    }
    return false;
  }

  // Returns the entries whose slice is not verified yet.
  std::vector<LedgerEntry> Open() const {
    std::vector<LedgerEntry> open;
    for (const LedgerEntry& entry : entries_) {
      if (entry.ledger != nullptr && !entry.ledger->is_good()) open.push_back(entry);
    }
    return open;
  }

 private:
  std::vector<LedgerEntry> entries_;
};

class RestoreKernel {
 public:
  explicit RestoreKernel(const Attributes& attributes) : options_(NodeOptions::Of(attributes)) {}

  void Compute(const Run& run) const {
    const DeferredInterrupt interrupt;
    CountCall(StockOp::kRestore);
    std::vector<Output> outputs = Prepare(run);
    if (!outputs.empty() && outputs[0].source.is_remote) return ReadRemote(&outputs);
    uint64_t size = 0;
    std::vector<Output*> small;
    Ledgers ledgers;
    for (Output& output : outputs) {
      size += output.bytes.size();
      if (output.bytes.size() < kLargeOutput) {
        small.push_back(&output);
      } else {
        Append(Read(&output, ThreadsFor(options_.threads, output.bytes.size())), &ledgers);
      }
    }
    const int threads = ThreadsFor(options_.threads, size);
    std::vector<Ledgers> found(small.size());
    ParallelFor(small.size(), threads, [&](size_t i) { found[i] = Read(small[i], 1); });
    for (const auto& each : found) Append(each, &ledgers);
    // Now this op holds no claim.
    for (const LedgerEntry& entry : ledgers) {
      entry.ledger->Finish(entry.slice, ThreadsFor(options_.threads, UINT64_MAX));
    }
    for (const Output& output : outputs) {
      if (!output.is_verified_apart) continue;
      ReadAgainIfRewritten(output.source, output.box, output.bytes, threads);
    }
  }

 private:
  using Ledgers = std::vector<LedgerEntry>;
  using Verify = NodeOptions::Verify;

  static void Append(const Ledgers& from, Ledgers* to) {
    to->insert(to->end(), from.begin(), from.end());
  }

  std::vector<Output> Prepare(const Run& run) const {
    const std::vector<std::string> names = run.InputStrings(1);
    const auto count = static_cast<size_t>(run.num_outputs());
    if (names.size() != count) {
      throw OpError(Code::kInvalidArgument, "Got " + std::to_string(names.size()) +
                                                " tensor names, but " + std::to_string(count) +
                                                " expected dtypes.");
    }
    const std::vector<std::string> prefixes = run.InputStrings(0);
    if (prefixes.size() != 1) {
      throw OpError(Code::kInvalidArgument, "Input prefix should have a single element, got " +
                                                std::to_string(prefixes.size()) + " instead.");
    }
    const std::vector<std::string> specs = run.InputStrings(2);
    const std::vector<int64_t> name_dims = DimsOf(run.Input(1).get());
    const std::vector<int64_t> spec_dims = DimsOf(run.Input(2).get());
    if (name_dims.size() != 1 || spec_dims.size() != 1) {
      throw OpError(Code::kInvalidArgument,
                    "Input tensor_names and shape_and_slices should be an 1-D tensors, got " +
                        ShapeText(name_dims) + " and " + ShapeText(spec_dims) + " instead.");
    }
    if (specs.size() != names.size()) {
      throw OpError(Code::kInvalidArgument,
                    "tensor_names and shape_and_slices have different number of elements: " +
                        std::to_string(names.size()) + " vs. " + std::to_string(specs.size()));
    }
    std::vector<TypeNumber> types;
    for (size_t i = 0; i < count; ++i) types.push_back(run.OutputType(static_cast<int>(i)));
    const OpenedTensors opened = OpenStock(prefixes[0], names, types, IoMode::kPread);
    std::vector<Output> outputs;
    for (size_t i = 0; i < count; ++i) {
      const OpenTensor source = opened[i];
      // RestoreV2 reports an extent outside the tensor as INTERNAL.
      Output output{
          source, ParseSliceSpec(specs[i], names[i], source.shape(), Code::kInternal), nullptr, {}};
      RequireBox(*opened.checkpoint, *output.source.tensor, output.box);
      if (source.tensor->dtype == DataType::kVariant) {
        run.SetOutput(static_cast<int>(i), ReadVariants(source, output.box).get());
        continue;
      }
      if (options_.map && !source.is_remote && !output.box.empty() && Volume(output.box) != 0 &&
          !HasVariableSize(source.tensor->dtype)) {
        run.SetOutput(static_cast<int>(i), MapBox(source, output.box).get());
        if (options_.verify == Verify::kFull) VerifySlices(source, output.box, options_.threads);
        continue;
      }
      output.tensor = run.Allocate(static_cast<int>(i), types[i], Lengths(output.box));
      output.bytes = MutableBytesOf(output.tensor.get());
      outputs.push_back(std::move(output));
    }
    return outputs;
  }

  TensorPtr ReadVariants(const OpenTensor& source, const Box& box) const {
    if (box != WholeBox(source.shape())) {
      throw OpError(Code::kInvalidArgument, "slices of variant tensors are not supported");
    }
    std::vector<std::string> elements;
    for (const StoredSlice& slice : source.checkpoint->catalog().Slices(*source.tensor)) {
      const StringElements stored =
          ReadStrings(*source.checkpoint, *source.tensor, slice, options_.verify != Verify::kNone);
      for (size_t i = 0; i < stored.size(); ++i) elements.emplace_back(stored[i]);
    }
    return NewVariantTensor(Lengths(box), elements);
  }

  void ReadRemote(std::vector<Output>* outputs) const {
    const auto place = [](const Output& output) {
      return output.source.checkpoint->catalog().FilePosition(*output.source.tensor);
    };
    std::stable_sort(outputs->begin(), outputs->end(),
                     [&](const Output& a, const Output& b) { return place(a) < place(b); });
    for (const Output& output : *outputs) {
      const auto& [source, box, tensor, bytes, is_verified_apart] = output;
      const bool verify = options_.verify != Verify::kNone;
      if (HasVariableSize(source.tensor->dtype)) {
        ReadStringBox(source, box, verify, tensor.get());
      } else {
        ReadBox(*source.checkpoint, *source.tensor, box, bytes,
                {.threads = 1,
                 .verify = verify,
                 .fresh = UffdBuffer::IsNew(bytes),
                 .verify_partial = options_.verify == Verify::kFull});
      }
    }
  }

  // Reads an output. Returns the ledgers that must verify slices of it.
  Ledgers Read(Output* output, int threads) const {
    const auto& [source, box, tensor, bytes, is_verified_apart] = *output;
    const Checkpoint& checkpoint = *source.checkpoint;
    if (HasVariableSize(source.tensor->dtype)) {
      ReadStringBox(source, box, options_.verify != Verify::kNone, tensor.get());
      return {};
    }
    const ReadOptions options{threads, options_.verify != Verify::kNone, UffdBuffer::IsNew(bytes)};
    if (options_.verify != Verify::kFull || bytes.empty()) {
      ReadBox(checkpoint, *source.tensor, box, bytes, options);
      return {};
    }
    return ReadAndVerify(output, options);
  }

  static Ledgers ReadAndVerify(Output* output, const ReadOptions& options) {
    const OpenTensor& source = output->source;
    const Checkpoint& checkpoint = *source.checkpoint;
    const uint64_t item_size = RequireKnownType(*source.tensor).item_size;
    Claims claims;
    for (const SliceOverlap& overlap :
         FindOverlaps(checkpoint.catalog(), *source.tensor, output->box)) {
      if (!overlap.is_whole_slice() && HasChecksumOfBytes(checkpoint, *overlap.slice) &&
          overlap.slice->size >= kMinLedgerSlice) {
        claims.Add(source, overlap, item_size, output->box);
      } else {
        claims.AddNone();
      }
    }
    const std::vector<PartialChecksum> checksums =
        ReadBoxWithChecksums(checkpoint, *source.tensor, output->box, output->bytes, options);
    output->is_verified_apart = claims.LeavesOut(checksums);
    claims.Deposit(checksums);
    VerifyChecksums(checkpoint, *source.tensor, claims.WithoutLedger(checksums), options.threads);
    return claims.Open();
  }

  const NodeOptions options_;
};

}  // namespace

void RegisterRestoreKernel() { RegisterOverride<RestoreKernel>(StockOp::kRestore); }

}  // namespace tensorbundle::op
