// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/verify.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <tuple>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/checked_read.h"
#include "tensorbundle/view/read_box.h"
#include "tensorbundle/view/strings.h"
#include "tensorbundle/view/tiling.h"

namespace tensorbundle {
namespace {

// Pieces up to this size are verified side by side, larger ones by all threads together.
constexpr uint64_t kSmallPiece = uint64_t{4} << 20;

struct Item {
  size_t tensor;
  const Piece* piece;
  bool is_counted_elsewhere =
      false;  // another item has the same bytes: a V1 block with many records
};

void VerifyPiece(const Checkpoint& checkpoint, const Tensor& tensor, const Piece& piece,
                 int threads, const std::function<void(uint64_t)>& progress) {
  RequireKnownType(tensor);
  checkpoint.CheckPiece(tensor, piece, Compared::kYes);
  if (checkpoint.records() != nullptr) {
    checkpoint.records()->Verify(tensor, piece);
    progress(piece.size);
  } else if (piece.encoding == Encoding::kDense) {
    const File& file = checkpoint.files().Get(piece.file);
    CheckChecksum(checkpoint, tensor, piece,
                  ParallelChecksum(file, piece.offset, piece.size, threads, progress));
  } else {
    ReadStrings(checkpoint, tensor, piece, /*verify=*/true);
    progress(piece.size);
  }
  checkpoint.SetVerified(piece);
}

// System errors that say something of what is on the disk, and stay as long as it does.
bool IsLasting(int error_number) {
  return error_number == EISDIR || error_number == EINVAL || error_number == ELOOP;
}

// What the exception being handled says of a piece; piece null: of its tensor.
Damage DamageOf(const Checkpoint& checkpoint, size_t index, const Piece* piece) {
  Damage damage{index, piece, {}};
  try {
    throw;
  } catch (const IOFailure& error) {
    damage.message = std::string(error.what()) + ": " + std::strerror(error.error_number());
    if (!IsLasting(error.error_number())) damage.error_number = error.error_number();
  } catch (const Error& error) {
    damage.message = error.what();
  }
  if (piece == nullptr) return damage;
  const Catalog& catalog = checkpoint.catalog();
  const std::string own = Describe(catalog, catalog.tensors[index], *piece) + ": ";
  const DataFiles& files = checkpoint.files();
  if (files.IsOpen(piece->file)) {
    damage.cause = files.Foreign(piece->file).reason;
  } else if (damage.message.starts_with(own)) {
    damage.cause = damage.message.substr(own.size());
  }
  return damage;
}

// The result so far, shared by threads.
class Verifier {
 public:
  Verifier(const Checkpoint& checkpoint, const std::function<void(uint64_t)>& progress)
      : checkpoint_(checkpoint), progress_(progress) {}

  // Compares a piece, by so many threads.
  void Verify(const Item& item, int threads) {
    const auto progress = [this, &item](uint64_t bytes) {
      if (!item.is_counted_elsewhere) num_bytes_.fetch_add(bytes, std::memory_order_relaxed);
      progress_(bytes);
    };
    try {
      VerifyPiece(checkpoint_, checkpoint_.catalog().tensors[item.tensor], *item.piece, threads,
                  progress);
    } catch (const Error&) {
      Add(DamageOf(checkpoint_, item.tensor, item.piece));
    }
  }

  // Whether every element of a tensor is stored, and once.
  void VerifyCover(size_t index) {
    const Catalog& catalog = checkpoint_.catalog();
    const Tensor& tensor = catalog.tensors[index];
    if (tensor.num_elements == 0) return;
    if (tensor.num_pieces == 1 && catalog.Pieces(tensor)[0].first_extent == Piece::kWholeTensor) {
      return;
    }
    try {
      CoverBox(catalog, tensor, WholeBox(catalog.Shape(tensor)));
    } catch (const Error&) {
      Add(DamageOf(checkpoint_, index, nullptr));
    }
  }

  VerifyResult TakeResult() {
    const auto place = [](const Damage& damage) {
      const Piece* piece = damage.piece;  // none: before all files
      return piece == nullptr ? std::make_tuple(false, uint32_t{0}, uint64_t{0}, damage.tensor)
                              : std::make_tuple(true, piece->file, piece->offset, damage.tensor);
    };
    std::stable_sort(damages_.begin(), damages_.end(),
                     [&](const Damage& a, const Damage& b) { return place(a) < place(b); });
    return {std::move(damages_), num_bytes_};
  }

 private:
  void Add(Damage damage) {
    const std::lock_guard<std::mutex> lock(mutex_);
    damages_.push_back(std::move(damage));
  }

  const Checkpoint& checkpoint_;
  const std::function<void(uint64_t)>& progress_;
  std::atomic<uint64_t> num_bytes_{0};
  std::mutex mutex_;
  std::vector<Damage> damages_;  // guarded by mutex_
};

}  // namespace

VerifyResult VerifyTensors(const Checkpoint& checkpoint, std::span<const size_t> tensors,
                           int threads, const std::function<void(uint64_t)>& progress) {
  const Catalog& catalog = checkpoint.catalog();
  if (checkpoint.records() != nullptr) checkpoint.records()->Forget();  // the disk is what is asked
  Verifier verifier(checkpoint, progress);
  std::vector<Item> items;
  for (const size_t tensor : tensors) {
    for (const Piece& piece : catalog.Pieces(catalog.tensors[tensor]))
      items.push_back({tensor, &piece});
    verifier.VerifyCover(tensor);
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tie(a.piece->file, a.piece->offset) < std::tie(b.piece->file, b.piece->offset);
  });
  for (size_t i = 1; i < items.size(); ++i) {
    const Piece& before = *items[i - 1].piece;
    const Piece& piece = *items[i].piece;
    items[i].is_counted_elsewhere = piece.encoding == Encoding::kRecord &&
                                    before.encoding == Encoding::kRecord &&
                                    piece.file == before.file && piece.offset == before.offset;
  }
  const auto large = std::stable_partition(
      items.begin(), items.end(), [](const Item& item) { return item.piece->size <= kSmallPiece; });
  ParallelFor(static_cast<size_t>(large - items.begin()), threads,
              [&](size_t i) { verifier.Verify(items[i], 1); });
  for (auto item = large; item != items.end(); ++item) verifier.Verify(*item, threads);
  return verifier.TakeResult();
}

void RequireReadable(const Checkpoint& checkpoint, const Tensor& tensor, const Piece& piece) {
  checkpoint.CheckPiece(tensor, piece, Compared::kNo);
  if (!checkpoint.files().IsDoubtful(piece.file) || piece.size == 0) return;
  if (checkpoint.IsVerified(piece) || !piece.has_checksum) return;
  try {
    VerifyPiece(checkpoint, tensor, piece, AvailableProcessors(), [](uint64_t) {});
  } catch (const CorruptionError& error) {
    throw CorruptionError(std::string(error.what()) +
                          "; the file is newer than its index: the checkpoint was being replaced, "
                          "or a save did not end. Open it again");
  }
}

}  // namespace tensorbundle
