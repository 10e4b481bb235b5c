// SPDX-License-Identifier: Apache-2.0
// Aligned copies, copies and new checkpoints, each with a destination of its own.
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "operations.h"
#include "tensorbundle/base/crc32c.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/write/align.h"
#include "tensorbundle/write/bundle_writer.h"

namespace tensorbundle::threads {
namespace {

// Reads a new checkpoint, and removes its files.
void CheckAndRemove(const std::string& prefix, std::span<const Table> tables) {
  const auto checkpoint = Checkpoint::OpenBundle(prefix, IoMode::kPread);
  for (const Table& table : tables) {
    const size_t index = checkpoint->catalog().Find(table.name);
    Require(index != Catalog::kNotFound, "a table of a new checkpoint");
    std::vector<uint8_t> out(static_cast<size_t>(table.rows * table.columns) * 4);
    const Box whole = WholeBox(table.dims());
    ReadBox(*checkpoint, checkpoint->catalog().tensors[index], whole, out, {.threads = 2});
    table.Check(whole, out.data());
  }
  for (const std::string& path : checkpoint->catalog().files) std::filesystem::remove(path);
  std::filesystem::remove(prefix + ".index");
}

void AlignedCopy(Worker* worker) {
  const std::string prefix = worker->NewPrefix();
  AlignPlan(worker->shared->files.v2(), uint64_t{1} << (6 + worker->Below(7)))
      .Write(prefix, worker->Threads(), [](uint64_t) {});
  CheckAndRemove(prefix, SampleFiles::V2Tables());
}

void CopyFromHandle(Worker* worker) {
  const auto checkpoint = worker->shared->handles[0]->Get();
  const std::string prefix = worker->NewPrefix();
  BundleWriter writer(prefix, {.num_shards = 2, .threads = worker->Threads()});
  std::vector<TensorCopy> copies;
  for (const Tensor& tensor : checkpoint->catalog().tensors) {
    copies.push_back({checkpoint, &tensor, std::string(tensor.name)});
  }
  CopyTensors(&writer, copies, [](uint64_t) {});
  writer.Publish();
  CheckAndRemove(prefix, SampleFiles::V2Tables());
}

// Several threads write to one writer.
void WriteNew(Worker* worker) {
  std::vector<Table> tables;
  for (int i = 0; i < 6; ++i) {
    tables.push_back({"t" + std::to_string(i), DataType::kInt32, 1 + worker->Below(300),
                      1 + worker->Below(900), static_cast<uint32_t>(worker->Below(1000))});
  }
  const std::string prefix = worker->NewPrefix();
  BundleWriter writer(prefix, {.num_shards = 2, .threads = 2});
  ParallelFor(tables.size(), 3, [&](size_t i) {
    const Table& table = tables[i];
    const SliceInfo info{table.name, table.dtype, table.dims(), std::nullopt};
    writer.Reserve(info);
    const std::string bytes = table.Bytes();
    const Placement place = writer.Allocate(bytes.size());
    const size_t half = bytes.size() / 2;
    const uint32_t first = writer.Write(place, 0, AsBytes(bytes.substr(0, half)));
    const uint32_t second = writer.Write(place, half, AsBytes(bytes.substr(half)));
    const uint32_t crc = crc32c::Combine(first, second, bytes.size() - half);
    writer.Record(info, place, crc32c::Mask(crc));
  });
  writer.Publish();
  CheckAndRemove(prefix, tables);
}

// A writer that is destroyed before it has published.
void GiveUp(Worker* worker) {
  const std::string prefix = worker->NewPrefix();
  {
    BundleWriter writer(prefix, {.threads = 2});
    const std::string bytes(100'000, 'x');
    writer.Write(writer.Allocate(bytes.size()), 0, AsBytes(bytes));
  }
  Require(!std::filesystem::exists(prefix + ".index"), "an index of an abandoned checkpoint");
}

}  // namespace

const std::vector<Operation>& WriteOperations() {
  static const std::vector<Operation> operations = {
      {"align", &AlignedCopy},
      {"copy", &CopyFromHandle},
      {"write", &WriteNew},
      {"give up", &GiveUp},
  };
  return operations;
}

}  // namespace tensorbundle::threads
