// SPDX-License-Identifier: Apache-2.0
// The kernels of the op library. Their caches, and the ledger of checksums, are shared by all
// threads of the process.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "operations.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorflow_op/kernel.h"
#include "tensorflow_op/remote_files.h"

namespace tensorbundle::threads {
namespace {

using fake::Kernel;
using fake::Node;
using fake::Result;

constexpr const char* kRemote = "test://";

op::TypeNumber TypeOf(const Table& table) { return static_cast<op::TypeNumber>(table.dtype); }

void RequireOk(const Result& result) { Require(result.code == op::Code::kOk, result.message); }

std::string SpecOf(const Table& table, const Box& box) {
  std::string spec = std::to_string(table.rows) + " " + std::to_string(table.columns) + " ";
  for (size_t axis = 0; axis < 2; ++axis) {
    spec += (axis == 0 ? "" : ":") + std::to_string(box[axis].start) + "," +
            std::to_string(box[axis].length);
  }
  return spec;
}

// A request for a box of a table, by any of the kernels.
struct Wanted {
  const Table* table;
  Box box;
};

std::vector<Wanted> RandomBoxes(Worker* worker, const std::vector<Table>& tables) {
  std::vector<Wanted> wanted;
  for (int64_t count = 1 + worker->Below(5); count > 0; --count) {
    const Table& table = worker->TableOf(tables);
    const bool is_whole = worker->Below(4) == 0;
    wanted.push_back(
        {&table, is_whole ? WholeBox(table.dims()) : table.RandomBox(&worker->random)});
  }
  return wanted;
}

Result RunRestore(const Kernel& kernel, const std::string& prefix,
                  const std::vector<Wanted>& wanted) {
  std::vector<std::string> names;
  std::vector<std::string> specs;
  std::vector<op::TypeNumber> types;
  for (const auto& [table, box] : wanted) {
    names.push_back(table->name);
    specs.push_back(SpecOf(*table, box));
    types.push_back(TypeOf(*table));
  }
  return kernel.Run(
      {fake::StringsTensor({prefix}), fake::StringsTensor(names), fake::StringsTensor(specs)},
      types);
}

void CheckOutputs(const Result& result, const std::vector<Wanted>& wanted) {
  RequireOk(result);
  for (size_t i = 0; i < wanted.size(); ++i) {
    wanted[i].table->Check(wanted[i].box, result.outputs[i].buffer->data);
  }
}

void Restore(Worker* worker) {
  const std::vector<Wanted> wanted = RandomBoxes(worker, SampleFiles::V2Tables());
  CheckOutputs(RunRestore(*worker->shared->restore, worker->shared->files.v2(), wanted), wanted);
}

// Makes the caches read the index again, and the ledgers verify the slices again.
void Touch(Worker* worker) {
  const auto now = std::filesystem::file_time_type::clock::now();
  const std::string prefix = worker->shared->files.v2();
  for (int32_t shard = 0; shard < 3; ++shard) {
    std::filesystem::last_write_time(DataFilePath(prefix, shard, 3), now);
  }
  std::filesystem::last_write_time(prefix + ".index", now);
}

// Four ops that restore the partitions of one variable at the same time. They verify it together.
void RestorePartitions(Worker* worker) {
  const bool is_damaged = worker->Flip();
  const Table& big = SampleFiles::V2Tables()[0];
  const SampleFiles& files = worker->shared->files;
  if (!is_damaged) Touch(worker);
  ParallelFor(4, 4, [&](size_t i) {
    const int64_t rows = big.rows / 4;
    const std::vector<Wanted> wanted = {
        {&big, {{static_cast<int64_t>(i) * rows, rows}, {0, big.columns}}}};
    const std::string prefix = is_damaged ? files.damaged() : files.v2();
    const Result result = RunRestore(*worker->shared->restore, prefix, wanted);
    if (!is_damaged) return CheckOutputs(result, wanted);
    Require(result.code == op::Code::kDataLoss, "a partition of a damaged tensor was restored");
  });
}

void RestoreV1(Worker* worker) {
  const std::vector<Wanted> wanted = RandomBoxes(worker, SampleFiles::V1Tables());
  CheckOutputs(RunRestore(*worker->shared->restore, worker->shared->files.v1(), wanted), wanted);
}

void RestoreRemote(Worker* worker) {
  const std::vector<Wanted> wanted = RandomBoxes(worker, SampleFiles::V2Tables());
  CheckOutputs(RunRestore(*worker->shared->restore, kRemote + worker->shared->files.v2(), wanted),
               wanted);
}

void RestoreWords(Worker* worker) {
  const Result result =
      worker->shared->restore->Run({fake::StringsTensor({worker->shared->files.v2()}),
                                    fake::StringsTensor({"words"}), fake::StringsTensor({""})},
                                   {fake::kString});
  RequireOk(result);
  Require(fake::StringsOf(result.outputs[0]) == Words(), "restored strings");
}

void RestoreWithOptions(Worker* worker) {
  const char* const verify[] = {"full", "lazy", "none"};
  const Kernel kernel("RestoreV2", {{"_tensorbundle_verify", verify[worker->Below(3)]},
                                    {"_tensorbundle_threads", int64_t{1} + worker->Below(3)}});
  const std::vector<Wanted> wanted = RandomBoxes(worker, SampleFiles::V2Tables());
  CheckOutputs(RunRestore(kernel, worker->shared->files.v2(), wanted), wanted);
}

// Rows of "big", whose offset and row size are multiples of 64.
Wanted MappableBox(Worker* worker) {
  const Table& big = SampleFiles::V2Tables()[0];
  Box box = big.RandomBox(&worker->random);
  box[1] = {0, big.columns};
  return {&big, box};
}

// Mapped outputs may be written to, as TensorFlow does with variables.
void CheckAndOverwrite(const Wanted& wanted, TF_Tensor* output) {
  Require(output->dims[0] == wanted.box[0].length + 1, "the extra row of a mapped tensor");
  wanted.table->Check(wanted.box, output->buffer->data);
  std::memset(output->buffer->data, 7, 256);
}

void RestoreMapped(Worker* worker) {
  const Kernel kernel("RestoreV2", {{"_tensorbundle_mode", "map"}});
  const Wanted wanted = MappableBox(worker);
  Result result = RunRestore(kernel, worker->shared->files.v2(), {wanted});
  RequireOk(result);
  CheckAndOverwrite(wanted, &result.outputs[0]);
}

void Map(Worker* worker) {
  const Wanted wanted = MappableBox(worker);
  const Kernel kernel("TensorbundleMapV1",
                      {{"prefix", worker->shared->files.v2()},
                       {"tensor", wanted.table->name},
                       {"slice_specs", std::vector<std::string>{SpecOf(*wanted.table, wanted.box)}},
                       {"dtype", fake::Type{fake::kFloat}},
                       {"verify", worker->Flip() ? "full" : "none"},
                       {"threads", int64_t{0}},
                       {"N", int64_t{1}}});
  Result result = kernel.Run({}, {fake::kFloat, fake::kInt64, fake::kInt64});
  RequireOk(result);
  CheckAndOverwrite(wanted, &result.outputs[0]);
}

// Every part of a table with a wrong byte fails, also if another op verifies it meanwhile.
void RestoreDamaged(Worker* worker) {
  const Table& table = SampleFiles::V2Tables()[0];
  const Result result = RunRestore(*worker->shared->restore, worker->shared->files.damaged(),
                                   {{&table, table.RandomBox(&worker->random)}});
  Require(result.code == op::Code::kDataLoss, "a wrong checksum was not reported");
}

void RestoreChanging(Worker* worker) {
  const Table first = SampleFiles::ChangingTable(0);
  const Table second = SampleFiles::ChangingTable(1);
  const Box box = first.RandomBox(&worker->random);
  const Result result =
      RunRestore(*worker->shared->restore, worker->shared->files.changing(), {{&first, box}});
  if (result.code == op::Code::kDataLoss) return;  // it is replaced all the time
  RequireOk(result);
  const void* data = result.outputs[0].buffer->data;
  Require(first.Equals(box, data) || second.Equals(box, data), "restored two versions");
}

// A read whose checksums another op compares.
void ReadAndVerify(Worker* worker) {
  const std::string prefix = worker->shared->files.v2();
  const Table& table = worker->TableOf(SampleFiles::V2Tables());
  const Box box = table.RandomBox(&worker->random);
  const char* const verify[] = {"full", "parts", "lazy", "none"};
  const Node node = {{"prefix", prefix},
                     {"tensor", table.name},
                     {"slice_spec", SpecOf(table, box)},
                     {"dtype", fake::Type{TypeOf(table)}},
                     {"verify", verify[worker->Below(4)]},
                     {"threads", int64_t{0}}};
  const Result result = Kernel("TensorbundleReadV1", node).Run({}, {TypeOf(table), fake::kInt64});
  RequireOk(result);
  table.Check(box, result.outputs[0].buffer->data);
  const Kernel checks(
      "TensorbundleVerifyV1",
      {{"prefix", prefix}, {"tensor", table.name}, {"dtype", fake::Type{TypeOf(table)}}});
  RequireOk(checks.Run({result.outputs[1]}, {10}));
}

// A warm start with TensorFlow's ops: the ids of new rows, and the remapped table.
void WarmStart(Worker* worker) {
  const Shared& shared = *worker->shared;
  const Table& table = SampleFiles::V2Tables()[2];
  const int64_t offset = worker->Below(400);
  const int64_t count = 1 + worker->Below(1500);
  const Kernel join(
      "GenerateVocabRemapping",
      {{"new_vocab_offset", offset}, {"num_new_vocab", count}, {"old_vocab_size", table.rows}});
  const Result joined = join.Run({fake::ScalarString(shared.files.new_vocab_path()),
                                  fake::ScalarString(shared.files.old_vocab_path())},
                                 {fake::kInt64, fake::kInt32});
  RequireOk(joined);
  const auto* const ids = fake::Data<int64_t>(joined.outputs[0]);
  int64_t missing = 0;
  for (int64_t i = 0; i < count; ++i) {
    Require(ids[i] == SampleFiles::OldRow(offset + i, table.rows), "ids of a kernel");
    missing += ids[i] < 0 ? 1 : 0;
  }
  TF_Tensor fill = fake::NewTensor(fake::kFloat, {missing * table.columns});
  std::fill_n(static_cast<float*>(fill.buffer->data), missing * table.columns, 0.5f);
  const Kernel remap("LoadAndRemapMatrix", {{"num_rows", count}, {"num_cols", table.columns}});
  const Result result =
      remap.Run({fake::ScalarString(shared.files.v2()), fake::ScalarString(table.name),
                 joined.outputs[0], fake::Int64Tensor({}), fill},
                {fake::kFloat});
  RequireOk(result);
  const auto* const values = fake::Data<float>(result.outputs[0]);
  for (int64_t i = 0; i < count; ++i) {
    const float* const row = values + i * table.columns;
    if (ids[i] < 0) {
      Require(std::all_of(row, row + table.columns, [](float x) { return x == 0.5f; }), "fill");
    } else {
      table.Check({{ids[i], 1}, {0, table.columns}}, row);
    }
  }
}

// A warm start with our ops. The fill values may become the output.
void RemapOwn(Worker* worker) {
  const Shared& shared = *worker->shared;
  const Table& table = SampleFiles::V2Tables()[2];
  const int64_t offset = worker->Below(400);
  const int64_t count = 1 + worker->Below(1500);
  const std::vector<int64_t> shape = {count, table.columns};
  const bool is_full = worker->Flip();
  const Node vocabularies = {{"new_vocab", shared.files.new_vocab_path()},
                             {"old_vocab", shared.files.old_vocab_path()},
                             {"new_size", int64_t{-1}},
                             {"old_size", table.rows},
                             {"offset", offset}};
  Node node = {{"prefix", shared.files.v2()},
               {"tensor", table.name},
               {"dtype", fake::Type{fake::kFloat}},
               {"axis", int64_t{0}},
               {"num_rows", count},
               {"num_cols", int64_t{-1}},
               {"num_oov", int64_t{0}},
               {"fill_layout", is_full ? "full" : "zero"},
               {"shape", shape},
               {"threads", int64_t{0}}};
  node.insert(vocabularies.begin(), vocabularies.end());
  const uint32_t fill = is_full ? 0x01010101 : 0;
  std::vector<TF_Tensor> inputs;
  if (is_full) {
    inputs.push_back(fake::NewTensor(fake::kFloat, shape));
    std::memset(inputs[0].buffer->data, 1, inputs[0].buffer->size);
  }
  const Result result = Kernel("TensorbundleRemapV1", node).Run(std::move(inputs), {fake::kFloat});
  RequireOk(result);
  const auto* const words = fake::Data<uint32_t>(result.outputs[0]);
  int64_t missing = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = SampleFiles::OldRow(offset + i, table.rows);
    const uint32_t* const out = words + i * table.columns;
    missing += row < 0 ? 1 : 0;
    if (row < 0) {
      Require(std::all_of(out, out + table.columns, [&](uint32_t x) { return x == fill; }),
              "fill values of a remapped table");
    } else {
      table.Check({{row, 1}, {0, table.columns}}, out);
    }
  }
  Node counted = {
      {"num_new", count}, {"cells_per_entry", int64_t{2}}, {"out_type", fake::Type{fake::kInt64}}};
  counted.insert(vocabularies.begin(), vocabularies.end());
  const Result cells = Kernel("TensorbundleMissingV1", counted).Run({}, {fake::kInt64});
  RequireOk(cells);
  Require(*fake::Data<int64_t>(cells.outputs[0]) == 2 * missing, "missing cells");
}

// Local files as "test://" paths. The lock is that of Python's interpreter.
struct RemoteFile {
  std::ifstream stream;
  std::vector<uint8_t> read{};
};
std::mutex remote_mutex;
std::map<int64_t, RemoteFile> remote_files;

std::string WithoutScheme(const char* path) {
  return std::string(path).substr(std::string(kRemote).size());
}

void OpenRemoteFile(int64_t file, const char* path, int64_t max_whole, int64_t* result,
                    void* reply) {
  const std::lock_guard lock(remote_mutex);
  RemoteFile opened{std::ifstream(WithoutScheme(path), std::ios::binary | std::ios::ate)};
  if (!opened.stream) {
    op::AppendTo(reply, "no such file");
    *result = -static_cast<int64_t>(op::Code::kNotFound);
    return;
  }
  *result = opened.stream.tellg();
  if (*result <= max_whole) {
    std::string whole(static_cast<size_t>(*result), '\0');
    opened.stream.seekg(0);
    opened.stream.read(whole.data(), *result);
    op::AppendTo(reply, whole);
    return;
  }
  remote_files.insert_or_assign(file, std::move(opened));
}

void ReadRemoteFile(int64_t file, int64_t offset, int64_t size, const uint8_t** data,
                    int64_t* result, void*) {
  const std::lock_guard lock(remote_mutex);
  RemoteFile& opened = remote_files.at(file);
  opened.read.resize(static_cast<size_t>(size));
  opened.stream.clear();
  opened.stream.seekg(offset);
  opened.stream.read(reinterpret_cast<char*>(opened.read.data()), size);
  *data = opened.read.data();
  *result = opened.stream.gcount();
}

void CloseRemoteFile(int64_t file) {
  const std::lock_guard lock(remote_mutex);
  remote_files.erase(file);
}

void MatchRemoteFiles(const char*, int64_t* result, void*) { *result = 0; }

void Interrupt() {}

}  // namespace

void RegisterKernels(Shared* shared) {
  op::RegisterReadOp();
  op::RegisterMapOp();
  op::RegisterVerifyOp();
  op::RegisterMissingOp();
  op::RegisterRemapOp();
  op::RegisterRestoreKernel();
  op::RegisterWarmStartKernels();
  op::SetRemoteFunctions(
      {&OpenRemoteFile, &ReadRemoteFile, &CloseRemoteFile, &MatchRemoteFiles, &Interrupt});
  shared->restore = std::make_unique<const Kernel>("RestoreV2", Node{});
}

const std::vector<Operation>& KernelOperations() {
  static const std::vector<Operation> operations = {
      {"RestoreV2", &Restore},
      {"touch", &Touch},
      {"RestoreV2 of partitions", &RestorePartitions},
      {"RestoreV2 of V1", &RestoreV1},
      {"RestoreV2 of remote files", &RestoreRemote},
      {"RestoreV2 of strings", &RestoreWords},
      {"RestoreV2 with options", &RestoreWithOptions},
      {"RestoreV2 as a mapping", &RestoreMapped},
      {"RestoreV2 of a damaged checkpoint", &RestoreDamaged},
      {"RestoreV2 of a changing checkpoint", &RestoreChanging},
      {"map op", &Map},
      {"read op and verify op", &ReadAndVerify},
      {"GenerateVocabRemapping, LoadAndRemapMatrix", &WarmStart},
      {"remap op, missing op", &RemapOwn},
  };
  return operations;
}

}  // namespace tensorbundle::threads
