// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/view/verify.h"

#include <algorithm>
#include <mutex>
#include <tuple>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/io/checked_read.h"
#include "tensorbundle/view/read_box.h"
#include "tensorbundle/view/strings.h"

namespace tensorbundle {
namespace {

// Pieces up to this size are verified side by side, larger ones by all threads together.
constexpr uint64_t kSmallPiece = uint64_t{4} << 20;

struct Item {
  size_t tensor;
  const Piece* piece;
};

void VerifyPiece(const Checkpoint& checkpoint, const Tensor& tensor, const Piece& piece,
                 int threads, const std::function<void(uint64_t)>& progress) {
  RequireKnownType(tensor);
  checkpoint.CheckPiece(tensor, piece);
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

}  // namespace

std::vector<Damage> VerifyTensors(const Checkpoint& checkpoint, std::span<const size_t> tensors,
                                  int threads, const std::function<void(uint64_t)>& progress) {
  const Catalog& catalog = checkpoint.catalog();
  if (checkpoint.records() != nullptr) checkpoint.records()->Forget();  // the disk is what is asked
  std::vector<Item> items;
  for (const size_t tensor : tensors) {
    for (const Piece& piece : catalog.Pieces(catalog.tensors[tensor]))
      items.push_back({tensor, &piece});
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tie(a.piece->file, a.piece->offset) < std::tie(b.piece->file, b.piece->offset);
  });
  const auto large = std::stable_partition(
      items.begin(), items.end(), [](const Item& item) { return item.piece->size <= kSmallPiece; });

  std::mutex mutex;
  std::vector<Damage> damages;
  const auto verify = [&](const Item& item, int piece_threads) {
    try {
      VerifyPiece(checkpoint, catalog.tensors[item.tensor], *item.piece, piece_threads, progress);
    } catch (const Error& error) {
      const std::lock_guard<std::mutex> lock(mutex);
      damages.push_back({item.tensor, item.piece, error.what()});
    }
  };
  ParallelFor(static_cast<size_t>(large - items.begin()), threads,
              [&](size_t i) { verify(items[i], 1); });
  for (auto item = large; item != items.end(); ++item) verify(*item, threads);
  std::sort(damages.begin(), damages.end(), [](const Damage& a, const Damage& b) {
    return std::tie(a.piece->file, a.piece->offset) < std::tie(b.piece->file, b.piece->offset);
  });
  return damages;
}

}  // namespace tensorbundle
