// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/storage_notes.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

constexpr size_t kMaxNotes = 20;

struct Stored {
  const Tensor* tensor;
  const Piece* piece;
};

std::vector<Stored> InFileOrder(const Catalog& catalog) {
  std::vector<Stored> all;
  for (const Tensor& tensor : catalog.tensors) {
    for (const Piece& piece : catalog.Pieces(tensor)) {
      if (piece.size > 0) all.push_back({&tensor, &piece});
    }
  }
  std::sort(all.begin(), all.end(), [](const Stored& a, const Stored& b) {
    return std::tie(a.piece->file, a.piece->offset) < std::tie(b.piece->file, b.piece->offset);
  });
  return all;
}

// The size of a file, or nothing to compare with when it could not be opened.
uint64_t SizeOrZero(const DataFiles& files, uint32_t file) {
  try {
    return files.Get(file).size();
  } catch (const Error&) {
    return 0;  // its tensors say so when they are read
  }
}

}  // namespace

std::vector<std::string> StorageNotes(const Checkpoint& checkpoint) {
  const Catalog& catalog = checkpoint.catalog();
  std::vector<std::string> notes = catalog.notes;
  if (checkpoint.records() != nullptr)
    return notes;                   // a V1 file is a table: its pieces lie between other things
  std::map<uint32_t, Stored> last;  // per file, the piece that reaches farthest
  for (const Stored& stored : InFileOrder(catalog)) {
    const auto [before, is_first] = last.try_emplace(stored.piece->file, stored);
    if (is_first) continue;
    const uint64_t end = before->second.piece->offset + before->second.piece->size;
    if (stored.piece->offset < end && notes.size() < kMaxNotes) {
      notes.push_back(catalog.files[stored.piece->file] + ": " +
                      Describe(catalog, *before->second.tensor, *before->second.piece) + " and " +
                      Describe(catalog, *stored.tensor, *stored.piece) +
                      " share bytes from offset " + std::to_string(stored.piece->offset) + " on");
    }
    if (stored.piece->offset + stored.piece->size > end) before->second = stored;
  }
  for (const auto& [file, stored] : last) {
    const uint64_t end = stored.piece->offset + stored.piece->size;
    const uint64_t size = SizeOrZero(checkpoint.files(), file);
    if (size > end && notes.size() < kMaxNotes) {
      notes.push_back(catalog.files[file] + ": " + std::to_string(size - end) +
                      " bytes follow the last tensor");
    }
  }
  return notes;
}

}  // namespace tensorbundle
