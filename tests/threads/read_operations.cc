// SPDX-License-Identifier: Apache-2.0
// Opens, reads, gathers, streams, verifications and joins.
#include <chrono>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "operations.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/interrupt.h"
#include "tensorbundle/base/parallel.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/prefetch.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/remap.h"
#include "tensorbundle/read/row_stream.h"
#include "tensorbundle/read/verify.h"
#include "tensorbundle/vocab/join.h"

namespace tensorbundle::threads {
namespace {

// A table of a shared checkpoint, and the handle that this operation holds.
struct Source {
  explicit Source(Worker* worker) {
    SharedHandle& handle = worker->Handle();
    table = &worker->TableOf(handle.tables());
    checkpoint = handle.Get();
    tensor = &TensorOf(*checkpoint, table->name);
  }
  std::shared_ptr<const Checkpoint> checkpoint;
  const Table* table;
  const Tensor* tensor;
};

void OpenAndList(Worker* worker) {
  constexpr IoMode kModes[] = {IoMode::kAuto, IoMode::kMmap, IoMode::kPread};
  const auto checkpoint =
      Checkpoint::OpenBundle(worker->shared->files.v2(), kModes[worker->Below(3)]);
  Require(checkpoint->catalog().tensors.size() == SampleFiles::V2Tables().size() + 1, "list");
  for (const Table& table : SampleFiles::V2Tables()) {
    const Tensor& tensor = TensorOf(*checkpoint, table.name);
    const auto shape = checkpoint->catalog().Shape(tensor);
    Require(std::vector<int64_t>(shape.begin(), shape.end()) == table.dims(), "shape");
  }
  const Table& table = worker->TableOf(SampleFiles::V2Tables());
  const Box box = table.RandomBox(&worker->random);
  std::vector<uint8_t> out(Volume(box) * 4);
  ReadBox(*checkpoint, TensorOf(*checkpoint, table.name), box, out, {});
  table.Check(box, out.data());
  Require(StorageWarnings(*checkpoint).empty(), "warnings");
}

void CloseHandle(Worker* worker) { worker->Handle().Close(); }

void ReadOneBox(Worker* worker) {
  const Source source(worker);
  const Box box = source.table->RandomBox(&worker->random);
  std::vector<uint8_t> out(Volume(box) * 4);
  const ReadOptions options{.threads = worker->Threads(),
                            .verify = worker->Flip(),
                            .fresh = worker->Flip(),
                            .verify_partial = worker->Flip()};
  ReadBox(*source.checkpoint, *source.tensor, box, out, options);
  source.table->Check(box, out.data());
}

void ReadBoxAndVerify(Worker* worker) {
  const Source source(worker);
  const Box box = source.table->RandomBox(&worker->random);
  std::vector<uint8_t> out(Volume(box) * 4);
  const ReadOptions options{.threads = worker->Threads()};
  const auto partial = ReadBoxWithChecksums(*source.checkpoint, *source.tensor, box, out, options);
  VerifyChecksums(*source.checkpoint, *source.tensor, partial, worker->Threads());
  source.table->Check(box, out.data());
}

void ReadWholeTensors(Worker* worker) {
  SharedHandle& handle = worker->Handle();
  const auto checkpoint = handle.Get();
  std::vector<std::vector<uint8_t>> outs;
  std::vector<TensorRead> reads;
  for (const Table& table : handle.tables()) {
    outs.emplace_back(static_cast<size_t>(table.rows * table.columns) * 4);
    reads.push_back({&TensorOf(*checkpoint, table.name), outs.back()});
  }
  ReadTensors(*checkpoint, reads, {.threads = worker->Threads()});
  for (size_t i = 0; i < outs.size(); ++i) {
    const Table& table = handle.tables()[i];
    table.Check(WholeBox(table.dims()), outs[i].data());
  }
}

void ReadWords(Worker* worker) {
  SharedHandle& handle = worker->Handle();
  if (&handle.tables() != &SampleFiles::V2Tables()) return;  // of V1
  const auto checkpoint = handle.Get();
  const Tensor& tensor = TensorOf(*checkpoint, "words");
  const StringElements elements =
      ReadStrings(*checkpoint, tensor, checkpoint->catalog().Slices(tensor)[0], true);
  const std::vector<std::string> words = Words();
  Require(elements.size() == words.size(), "number of strings");
  for (size_t i = 0; i < words.size(); ++i) Require(elements[i] == words[i], "strings");
}

void View(Worker* worker) {
  const Source source(worker);
  const Box whole = WholeBox(source.table->dims());
  const TensorView view = ViewTensor(*source.checkpoint, *source.tensor);
  if (view) source.table->Check(whole, view.bytes.data());
  const TensorView copy = CopyOnWriteTensor(*source.checkpoint, *source.tensor);
  if (copy) {
    source.table->Check(whole, copy.bytes.data());
    std::memset(copy.owner->writable_data(), 0, 100);
  }
}

std::vector<int64_t> RandomRows(Worker* worker, const Table& table) {
  std::vector<int64_t> ids(static_cast<size_t>(1 + worker->Below(2000)));
  for (int64_t& id : ids) id = worker->Below(table.rows);
  return ids;
}

// Several threads use one layout, as those that gather from one tensor in Python.
void Gather(Worker* worker) {
  const Source source(worker);
  const RowLayout layout = LayOutRows(*source.checkpoint, *source.tensor);
  const std::vector<int64_t> ids = RandomRows(worker, *source.table);
  ParallelFor(2, 2, [&](size_t) {
    std::vector<uint8_t> out(ids.size() * layout.row_size);
    GatherRows(*source.checkpoint, *source.tensor, layout, std::span<const int64_t>(ids), {}, out,
               2);
    for (size_t i = 0; i < ids.size(); ++i) {
      source.table->Check({{ids[i], 1}, {0, source.table->columns}},
                          out.data() + i * layout.row_size);
    }
  });
}

void Remap(Worker* worker) {
  const Source source(worker);
  const Table& table = *source.table;
  std::vector<int64_t> rows = RandomRows(worker, table);
  for (size_t i = 0; i < rows.size(); i += 5) rows[i] = -1;
  std::vector<int64_t> columns;
  for (int64_t i = table.columns; i-- > 0;) columns.push_back(i % 7 == 3 ? -1 : i);
  Remapping remapping{.rows = std::span<const int64_t>(rows), .num_rows = rows.size()};
  if (worker->Flip()) remapping.columns = std::span<const int64_t>(columns);
  const RowLayout layout = LayOutRows(*source.checkpoint, *source.tensor);
  const auto width = static_cast<size_t>(table.columns);
  std::vector<uint32_t> out(rows.size() * width);
  const uint32_t fill = 0x3f800000;
  const auto* const fill_bytes = reinterpret_cast<const uint8_t*>(&fill);
  RemapTable(*source.checkpoint, *source.tensor, layout, remapping,
             {CellFillValues::Kind::kElement, {fill_bytes, sizeof(fill)}},
             {reinterpret_cast<uint8_t*>(out.data()), out.size() * 4}, width * 4,
             worker->Threads());
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t row = rows[i / width];
    const int64_t column = remapping.columns ? columns[i % width] : static_cast<int64_t>(i % width);
    const uint32_t expected = row < 0 || column < 0
                                  ? fill
                                  : table.Word(static_cast<uint64_t>(row * table.columns + column));
    Require(out[i] == expected, "remapped values");
  }
}

void Explain(Worker* worker) {
  const Source source(worker);
  const Box box = source.table->RandomBox(&worker->random);
  const auto ranges = RangesOfBox(*source.checkpoint, *source.tensor, box);
  const RangeStats stats = InspectRanges(*source.checkpoint, *source.tensor, ranges);
  Require(stats.num_bytes >= (box[0].length == 1 ? 1 : 4), "explain");
}

// Reads batches of rows in two threads, as the prefetcher does.
void ReadRowsInTwoThreads(Worker* worker) {
  const Source source(worker);
  RowReader reader(*source.checkpoint, *source.tensor, {.threads = 2});
  const int64_t batch_rows = 1 + worker->Below(source.table->rows);
  int64_t next = 0;
  while (next < source.table->rows) {
    std::vector<std::vector<uint8_t>> outs;
    std::vector<RowBatch> batches;
    for (int i = 0; i < 2 && next < source.table->rows; ++i) {
      outs.emplace_back(static_cast<size_t>(batch_rows) * reader.row_size());
      batches.push_back(reader.Plan(outs.back()));
      next = batches.back().end_row;
    }
    ParallelFor(batches.size(), 2, [&](size_t i) { reader.Read(&batches[i], 2); });
    for (size_t i = 0; i < batches.size(); ++i) {
      reader.Finish(&batches[i]);
      const int64_t first = batches[i].first_row;
      source.table->Check({{first, batches[i].end_row - first}, {0, source.table->columns}},
                          outs[i].data());
    }
  }
}

// Checks an item of a stream, and sometimes keeps its memory beyond the stream.
void TakeItem(Shared* shared, const Table& table, StreamItem item, bool keep) {
  Box box = {{item.first_row, item.num_rows}, {0, table.columns}};
  table.Check(box, item.buffer->data());
  if (!keep) return;
  std::vector<KeptRows> old;  // released after the lock
  const std::lock_guard lock(shared->kept_mutex);
  shared->kept.push_back({std::move(item.buffer), &table, std::move(box)});
  if (shared->kept.size() > 20) old.swap(shared->kept);
}

// Two threads take the items of one stream. Either of them may stop it.
void Stream(Worker* worker) {
  SharedHandle& handle = worker->Handle();
  const auto checkpoint = handle.Get();
  PrefetchOptions options{.tensors = {},
                          .max_ahead = static_cast<uint64_t>(worker->Below(2 << 20)),
                          .threads = worker->Threads()};
  std::vector<const Table*> tables(checkpoint->catalog().tensors.size());
  for (const Table& table : handle.tables()) {
    const size_t index = checkpoint->catalog().Find(table.name);
    tables[index] = &table;
    if (worker->Flip() || options.tensors.empty()) options.tensors.push_back(index);
  }
  options.tensors = InFileOrder(checkpoint->catalog(), options.tensors);
  if (worker->Flip()) {
    options.tensors.resize(1);
    options.rows = 1 + worker->Below(tables[options.tensors[0]]->rows);
  }
  uint64_t expected = 0;
  for (const size_t index : options.tensors) {
    expected += static_cast<uint64_t>(tables[index]->rows);
  }
  const int64_t stop_after = worker->Flip() ? worker->Below(6) : -1;
  const bool keeps = worker->Flip();
  std::atomic<int64_t> items{0};
  std::atomic<uint64_t> rows{0};
  std::atomic<bool> stopped{false};
  Prefetcher stream(checkpoint, options);
  const auto consume = [&] {
    StreamItem item;
    while (true) {
      const auto status = stream.Next(std::chrono::milliseconds(50), &item);
      if (status == Prefetcher::Status::kEnd) return;
      if (status == Prefetcher::Status::kWaiting) continue;
      const int64_t number = items++;
      rows += static_cast<uint64_t>(item.num_rows);
      const Table& table = *tables[item.tensor];
      TakeItem(worker->shared, table, std::move(item), keeps && number % 3 == 0);
      if (number == stop_after) {
        stopped = true;
        stream.Stop();
      }
    }
  };
  std::thread other(consume);
  consume();
  other.join();
  Require(stopped || rows == expected, "rows of a stream");
}

// A stream into memory of the caller, destroyed at a random moment.
void StreamToDestinations(Worker* worker) {
  const Source source(worker);
  const int64_t batch_rows = 1 + worker->Below(source.table->rows);
  const auto size = static_cast<size_t>(batch_rows * source.table->columns) * 4;
  std::vector<uint8_t> memory[2] = {std::vector<uint8_t>(size), std::vector<uint8_t>(size)};
  PrefetchOptions options{.tensors = {source.checkpoint->catalog().Find(source.table->name)},
                          .rows = batch_rows,
                          .max_ahead = uint64_t{1} << 22,
                          .threads = worker->Threads(),
                          .destinations = {memory[0], memory[1]}};
  Prefetcher stream(source.checkpoint, options);
  StreamItem item;
  for (int64_t left = worker->Below(40); left > 0; --left) {
    const auto status = stream.Next(std::chrono::milliseconds(50), &item);
    if (status == Prefetcher::Status::kEnd) return;
    if (status == Prefetcher::Status::kWaiting) continue;
    source.table->Check({{item.first_row, item.num_rows}, {0, source.table->columns}},
                        memory[item.destination].data());
  }
}

// Checks memory that some thread has kept, and releases it here.
void CheckKeptRows(Worker* worker) {
  std::optional<KeptRows> rows;
  {
    Shared& shared = *worker->shared;
    const std::lock_guard lock(shared.kept_mutex);
    if (shared.kept.empty()) return;
    const auto count = static_cast<int64_t>(shared.kept.size());
    std::swap(shared.kept[static_cast<size_t>(worker->Below(count))], shared.kept.back());
    rows = std::move(shared.kept.back());
    shared.kept.pop_back();
  }
  rows->table->Check(rows->box, rows->buffer->data());
}

std::vector<size_t> AllOf(const Checkpoint& checkpoint) {
  std::vector<size_t> all;
  for (size_t i = 0; i < checkpoint.catalog().tensors.size(); ++i) all.push_back(i);
  return all;
}

void Verify(Worker* worker) {
  const auto checkpoint = worker->Handle().Get();
  std::atomic<uint64_t> bytes{0};
  const VerifyResult result = VerifyTensors(*checkpoint, AllOf(*checkpoint), worker->Threads(),
                                            [&](uint64_t more) { bytes += more; });
  Require(result.corruptions.empty() && result.num_bytes == bytes, "verify");
}

struct Interrupted {};

// Work that stops because a callback, or the check of the interrupt scope, throws.
void StopInTheMiddle(Worker* worker) {
  const auto checkpoint = worker->Handle().Get();
  const InterruptScope scope([] { throw Interrupted{}; });
  std::atomic<int64_t> left{worker->Below(40)};
  try {
    VerifyTensors(*checkpoint, AllOf(*checkpoint), worker->Threads(), [&](uint64_t) {
      if (left-- <= 0) throw Interrupted{};
    });
  } catch (const Interrupted&) {
  }
  try {
    const Shared& shared = *worker->shared;
    Join(*shared.new_lines, *shared.old_vocab, {.threads = worker->Threads()});
  } catch (const Interrupted&) {
  }
}

void CheckJoin(const JoinResult& result, const JoinOptions& options) {
  const int64_t old_size =
      options.old_size == JoinOptions::kAll ? SampleFiles::kTokens : options.old_size;
  result.Visit([&](auto ids) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const int64_t row = options.new_offset + static_cast<int64_t>(i);
      Require(ids[i] == SampleFiles::OldRow(row, old_size), "ids of a join");
    }
  });
}

void JoinVocabularies(Worker* worker) {
  const Shared& shared = *worker->shared;
  JoinOptions options{.compact = worker->Flip(), .threads = worker->Threads()};
  if (worker->Flip()) {
    options.new_offset = worker->Below(SampleFiles::kTokens);
    options.num_new = worker->Below(SampleFiles::kTokens - options.new_offset);
    options.old_size = 1 + worker->Below(SampleFiles::kTokens);
  }
  switch (worker->Below(3)) {
    case 0:
      CheckJoin(Join(*shared.new_vocab, *shared.old_vocab, options), options);
      break;
    case 1:
      CheckJoin(Join(*shared.new_lines, *shared.old_vocab, options), options);
      break;
    default:
      CheckJoin(JoinFiles(File::Open(shared.files.new_vocab_path()),
                          File::Open(shared.files.old_vocab_path()), options),
                options);
  }
}

void ReadTokens(Worker* worker) {
  const Vocabulary& vocabulary = *worker->shared->old_vocab;
  std::atomic<uint64_t> tokens{0};
  const auto first = static_cast<uint64_t>(worker->Below(SampleFiles::kTokens / 2));
  vocabulary.ForEachBatch(first, SampleFiles::kTokens / 2, worker->Threads(),
                          [&](uint64_t row, std::span<const std::string_view> batch) {
                            Require(batch[0] == "token" + std::to_string(row), "tokens");
                            tokens += batch.size();
                          });
  Require(tokens == SampleFiles::kTokens / 2, "number of tokens");
}

// Another thread may replace the checkpoint. The values of one handle are of one version.
void ReadChanging(Worker* worker) {
  const Shared& shared = *worker->shared;
  try {
    const auto checkpoint = Checkpoint::OpenBundle(shared.files.changing(), IoMode::kAuto);
    const Tensor& tensor = TensorOf(*checkpoint, "rows");
    int versions = 3;  // a bit for each of the two
    for (int i = 0; i < 3; ++i) {
      const Box box = SampleFiles::ChangingTable(0).RandomBox(&worker->random);
      std::vector<uint8_t> out(Volume(box) * 4);
      ReadBox(*checkpoint, tensor, box, out, {.threads = 2});
      for (int version = 0; version < 2; ++version) {
        if (!SampleFiles::ChangingTable(version).Equals(box, out.data()))
          versions &= ~(1 << version);
      }
      Require(versions != 0, "values of two versions");
    }
  } catch (const CorruptionError&) {  // it is replaced all the time
  }
}

void Change(Worker* worker) {
  Shared& shared = *worker->shared;
  const std::lock_guard lock(shared.change_mutex);
  shared.version = 1 - shared.version;
  shared.files.WriteChanging(shared.version);
}

}  // namespace

const std::vector<Operation>& ReadOperations() {
  static const std::vector<Operation> operations = {
      {"open and list", &OpenAndList},
      {"close", &CloseHandle},
      {"read a box", &ReadOneBox},
      {"read and verify a box", &ReadBoxAndVerify},
      {"read tensors", &ReadWholeTensors},
      {"read strings", &ReadWords},
      {"view", &View},
      {"gather", &Gather},
      {"remap", &Remap},
      {"explain", &Explain},
      {"read rows", &ReadRowsInTwoThreads},
      {"stream", &Stream},
      {"stream to destinations", &StreamToDestinations},
      {"check kept rows", &CheckKeptRows},
      {"verify", &Verify},
      {"stop in the middle", &StopInTheMiddle},
      {"join", &JoinVocabularies},
      {"read tokens", &ReadTokens},
      {"read a changing checkpoint", &ReadChanging},
      {"replace the changing checkpoint", &Change},
  };
  return operations;
}

}  // namespace tensorbundle::threads
