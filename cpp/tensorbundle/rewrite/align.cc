// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/rewrite/align.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <optional>
#include <stdexcept>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/base/quoted.h"
#include "tensorbundle/bundle/bundle_index.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/file_diagnosis.h"
#include "tensorbundle/rewrite/record.h"
#include "tensorbundle/rewrite/table_builder.h"

namespace tensorbundle {
namespace {

void CheckAlignment(uint64_t alignment) {
  const bool in_range = alignment >= kSmallAlignment && alignment <= kMaxAlignment;
  if (std::has_single_bit(alignment) && in_range) return;
  throw std::invalid_argument("the alignment must be a power of two from " +
                              std::to_string(kSmallAlignment) + " to " +
                              std::to_string(kMaxAlignment) + ", not " + std::to_string(alignment));
}

std::vector<std::span<const PlacedPiece>> ByShard(std::span<const PlacedPiece> pieces) {
  std::vector<std::span<const PlacedPiece>> shards;
  while (!pieces.empty()) {
    size_t count = 1;
    while (count < pieces.size() && pieces[count].shard == pieces.front().shard) ++count;
    shards.push_back(pieces.first(count));
    pieces = pieces.subspan(count);
  }
  return shards;
}

// Bytes that the new shard has.
uint64_t NewSize(std::span<const PlacedPiece> shard) {
  uint64_t size = 0;
  for (const PlacedPiece& piece : shard) size = std::max(size, piece.new_offset + piece.size);
  return size;
}

// Bytes that have to be copied: those that tensors share once.
uint64_t BytesToCopy(std::span<const PlacedPiece> shard) {
  uint64_t size = 0;
  const PlacedPiece* before = nullptr;
  for (const PlacedPiece& piece : shard) {
    if (!IsCopiedWith(piece, before)) size += piece.size;
    before = &piece;
  }
  return size;
}

// Pieces that overlap are written apart from each other: a small file could ask for a full disk.
void CheckNotInflated(const File& source, std::span<const PlacedPiece> shard) {
  const uint64_t size = BytesToCopy(shard);
  if (size <= source.size()) return;
  throw UnsupportedError(source.path() + " has " + std::to_string(source.size()) +
                         " bytes, but its tensors take " + std::to_string(size) +
                         " in all, because they overlap; such a checkpoint is not aligned");
}

// What is at a path, links not followed.
std::optional<struct stat> Look(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return status;
}

bool AreSameFile(const std::string& a, const std::string& b) {
  struct stat at_a{};
  struct stat at_b{};
  return ::stat(a.c_str(), &at_a) == 0 && ::stat(b.c_str(), &at_b) == 0 &&
         at_a.st_dev == at_b.st_dev && at_a.st_ino == at_b.st_ino;
}

[[noreturn]] void ThrowExists(const std::string& path) {
  throw IOFailure("will not replace " + path + "; remove it or choose another name", path, EEXIST);
}

}  // namespace

AlignPlan::AlignPlan(std::string source, uint64_t alignment) : source_(std::move(source)) {
  CheckAlignment(alignment);
  // Read once: what is planned and what is written must be the same save.
  const auto index = std::make_shared<MemorySource>(*OpenIndexFile(source_));
  index_path_ = index->path();
  catalog_ = ReadBundleIndex(source_, index).catalog;
  entries_ = TableEntries::ReadAll(Table::Open(index));
  header_ = DecodeBundleHeader(entries_.value(0), index_path_);
  pieces_ = PlacePieces(entries_, header_, alignment, index_path_);
  shards_ = ByShard(pieces_);
  for (const Shard& shard : shards_) bytes_to_copy_ += BytesToCopy(shard);
}

AlignSummary AlignPlan::Write(const std::string& destination, int threads,
                              const std::function<void(uint64_t)>& progress) const {
  const ShardCopyOptions options{header_.big_endian, threads,
                                 [this](const PlacedPiece& piece) { return NameOf(piece); },
                                 progress};
  AlignSummary summary{.pieces = pieces_.size()};
  CheckFree(destination);
  for (const Shard& shard : shards_) {  // before hours of copying, not after them
    const std::shared_ptr<const File> file = OpenShard(shard);
    CheckInside(*file, shard, options);
    CheckNotInflated(*file, shard);
    summary.bytes_before += file->size();
    summary.bytes_after += NewSize(shard);
  }
  for (const PlacedPiece& piece : pieces_) {
    summary.moved += piece.size > 0 && piece.offset != piece.new_offset;
  }

  // Removed in the opposite order: the index first, the directory last.
  const std::unique_ptr<NewDirectory> directory = NewDirectory::For(destination);
  std::vector<std::unique_ptr<NewFile>> files;
  for (const Shard& shard : shards_) files.push_back(CopyShard(shard, destination, options));
  const std::unique_ptr<NewFile> index = WriteIndex(destination);

  for (const std::unique_ptr<NewFile>& file : files) file->Publish();
  directory->Sync();
  index->Publish();
  directory->Sync();
  index->Keep();
  for (const std::unique_ptr<NewFile>& file : files) file->Keep();
  directory->Keep();
  return summary;
}

std::unique_ptr<NewFile> AlignPlan::CopyShard(const Shard& shard, const std::string& destination,
                                              const ShardCopyOptions& options) const {
  const std::shared_ptr<const File> source = OpenShard(shard);
  CheckInside(*source, shard, options);
  std::unique_ptr<NewFile> file = NewFile::Create(ShardPath(destination, shard.front().shard));
  file->Resize(NewSize(shard));
  CopyPieces(*source, shard, *file, options);
  file->Finish();
  return file;
}

std::unique_ptr<NewFile> AlignPlan::WriteIndex(const std::string& destination) const {
  std::vector<const PlacedPiece*> piece_of(entries_.size());
  for (const PlacedPiece& piece : pieces_) piece_of[piece.record] = &piece;
  TableBuilder table;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (piece_of[i] == nullptr) {
      table.Add(entries_.key(i), AsText(entries_.value(i)));
    } else {
      table.Add(entries_.key(i), WithOffset(entries_.value(i), piece_of[i]->new_offset));
    }
  }
  std::unique_ptr<NewFile> file = NewFile::Create(destination + ".index");
  file->WriteAt(0, AsBytes(table.Finish()));
  file->Finish();
  return file;
}

// As messages name it everywhere else. Called only when something is wrong.
std::string AlignPlan::NameOf(const PlacedPiece& wanted) const {
  const std::string file = ShardPath(source_, wanted.shard);
  for (const Tensor& tensor : catalog_.tensors) {
    for (const Piece& piece : catalog_.Pieces(tensor)) {
      if (piece.offset == wanted.offset && piece.size == wanted.size &&
          piece.masked_checksum == wanted.masked_checksum && catalog_.files[piece.file] == file) {
        return Describe(catalog_, tensor, piece);
      }
    }
  }
  return "the slice record " + Quoted(entries_.key(wanted.record)) + ", which no tensor lists,";
}

std::shared_ptr<const File> AlignPlan::OpenShard(const Shard& shard) const {
  const std::string path = ShardPath(source_, shard.front().shard);
  try {
    std::shared_ptr<const File> file = File::Open(path);
    uint64_t end = 0;
    for (const PlacedPiece& piece : shard) end = std::max(end, piece.offset + piece.size);
    const ForeignFile foreign = Diagnose(*file, end);
    if (foreign.is_certain) throw CorruptionError(NameOf(shard.front()) + ": " + foreign.reason);
    return file;
  } catch (const CheckpointNotFoundError&) {
    throw CheckpointNotFoundError(NameOf(shard.front()) + ": the data shard " + path +
                                      " is missing; was the checkpoint copied in part?",
                                  path);
  }
}

std::string AlignPlan::ShardPath(const std::string& prefix, int32_t shard) const {
  return DataFilePath(prefix, shard, header_.num_shards);
}

// Throws when a file that would be written is there, or when a V1 checkpoint has that name.
void AlignPlan::CheckFree(const std::string& destination) const {
  const std::string index = destination + ".index";
  if (AreSameFile(index, index_path_)) {
    throw std::invalid_argument("the destination " + destination +
                                " is the source: an aligned checkpoint needs a name of its own");
  }
  if (Look(index)) ThrowExists(index);
  const std::optional<struct stat> namesake = Look(destination);
  if (namesake && S_ISREG(namesake->st_mode)) ThrowExists(destination);
  for (const Shard& shard : shards_) {
    const std::string path = ShardPath(destination, shard.front().shard);
    if (Look(path)) ThrowExists(path);
  }
}

}  // namespace tensorbundle
