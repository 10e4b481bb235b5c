// SPDX-License-Identifier: Apache-2.0
// The bytes describe tensors: their types, shapes and slices, and seeds of their values. They are
// written as a V1 and as a V2 checkpoint, and then aligned, or copied, or written by BundleWriter.
// Every one of these is read in every way, by mappings, system calls or requests, and all must give
// the same values.
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "fuzz_input.h"
#include "range_files.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/prefetch.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/read_strings.h"
#include "tensorbundle/read/row_layout.h"
#include "tensorbundle/read/row_stream.h"
#include "tensorbundle/read/verify.h"
#include "tensorbundle/v1/v1_checkpoint.h"
#include "tensorbundle/v1/values.h"
#include "tensorbundle/write/align.h"
#include "tensorbundle/write/bundle_writer.h"
#include "v1_builder.h"

namespace tensorbundle::fuzz {
namespace {

constexpr int64_t kMaxTensors = 3;
constexpr int64_t kMaxRank = 3;
constexpr int64_t kMaxDim = 6;

struct Example {
  std::string name;
  DataType dtype = DataType::kInvalid;
  std::vector<int64_t> dims;
  std::vector<Box> slices;  // none: stored whole
  std::string bytes;        // little-endian elements; of strings, one byte each

  size_t item_size() const { return FindDataType(dtype)->item_size; }
  bool has_strings() const { return dtype == DataType::kString; }
};

// Cuts a box at positions from the input.
std::vector<Box> TilesOf(const Box& whole, Input* input) {
  std::vector<Box> tiles = {whole};
  for (int64_t cuts = input->Below(8); cuts > 0 && !whole.empty(); --cuts) {
    const auto at = static_cast<size_t>(input->Below(static_cast<int64_t>(tiles.size())));
    const auto axis = static_cast<size_t>(input->Below(static_cast<int64_t>(whole.size())));
    const Extent extent = tiles[at][axis];
    if (extent.length < 2) continue;
    const int64_t length = 1 + input->Below(extent.length - 1);
    Box rest = tiles[at];
    tiles[at][axis].length = length;
    rest[axis] = {extent.start + length, extent.length - length};
    tiles.push_back(rest);
  }
  return tiles;
}

Example MakeExample(int64_t number, Input* input) {
  constexpr DataType kTypes[] = {DataType::kFloat,  DataType::kInt32,  DataType::kComplex64,
                                 DataType::kHalf,   DataType::kString, DataType::kInt64,
                                 DataType::kBool,   DataType::kUint8,  DataType::kInt16,
                                 DataType::kDouble, DataType::kInt8,   DataType::kComplex128};
  Example example;
  example.name = std::string(static_cast<size_t>(number), 'a') + "t/" + std::to_string(number);
  example.dtype = kTypes[input->Below(std::size(kTypes))];
  for (int64_t rank = input->Below(kMaxRank + 1); rank > 0; --rank) {
    example.dims.push_back(input->Below(kMaxDim));
  }
  const uint64_t count = Volume(WholeBox(example.dims));
  const size_t item_size = example.has_strings() ? 1 : example.item_size();
  std::minstd_rand random(input->Byte() + 1u);
  for (uint64_t i = 0; i < count * item_size; ++i) {
    const auto value = static_cast<char>(random() >> 8);
    example.bytes.push_back(example.dtype == DataType::kBool ? value & 1 : value);
  }
  const bool may_be_sliced = count > 0 && !example.has_strings() && !example.dims.empty();
  if (may_be_sliced && input->Byte() % 2 == 1) {
    example.slices = TilesOf(WholeBox(example.dims), input);
  }
  return example;
}

std::vector<std::string> StringsOf(const Example& example) {
  std::vector<std::string> strings;
  for (const char c : example.bytes) {
    strings.emplace_back(static_cast<uint8_t>(c) / 4, c);  // up to 63 bytes
  }
  return strings;
}

// ---- Writing.

std::string Swapped(std::string bytes, size_t unit) {
  for (size_t at = 0; at + unit <= bytes.size(); at += unit) {
    std::reverse(bytes.begin() + static_cast<ptrdiff_t>(at),
                 bytes.begin() + static_cast<ptrdiff_t>(at + unit));
  }
  return bytes;
}

// Returns the stored bytes of strings, and their checksum.
std::pair<std::string, uint32_t> StoredStrings(const Example& example) {
  const std::vector<std::string> strings = StringsOf(example);
  std::vector<ByteSpan> spans;
  for (const std::string& text : strings) spans.push_back(AsBytes(text));
  ElementsChecksum checksum(Encoding::kStrings, false);
  std::string bytes = EncodeStringLengths(spans, &checksum);
  for (const std::string& text : strings) {
    checksum.AddPayload(AsBytes(text));
    bytes += text;
  }
  return {bytes, checksum.value()};
}

void WriteV2(const std::vector<Example>& examples, const std::string& prefix, int32_t num_shards,
             bool big_endian) {
  testing::BundleBuilder builder(num_shards, big_endian);
  int32_t shard = 0;
  for (const Example& example : examples) {
    shard = (shard + 1) % num_shards;
    const unsigned unit = big_endian ? FindDataType(example.dtype)->swap_size : 1;
    if (example.has_strings()) {
      const auto [bytes, crc] = StoredStrings(example);
      testing::Record record = builder.Store(example.dtype, example.dims, bytes, shard);
      record.crc = crc;
      builder.Put(example.name, record.Message());
    } else if (example.slices.empty()) {
      builder.Add(example.name, example.dtype, example.dims, Swapped(example.bytes, unit), shard);
    } else {
      builder.AddSliced(example.name, example.dtype, example.dims, Swapped(example.bytes, unit),
                        example.slices);
    }
  }
  builder.Write(prefix);
}

// The TensorProto of little-endian elements.
std::string ValuesMessage(DataType dtype, const std::string& bytes) {
  const ValueField& field = *FindValueField(dtype);
  if (field.is_dense()) return testing::BytesField(field.number, bytes);
  const size_t size = FindDataType(dtype)->item_size;
  std::vector<int64_t> values;
  for (size_t at = 0; at < bytes.size(); at += size) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, size);
    const auto unused = static_cast<unsigned>(64 - 8 * size);
    values.push_back(field.min < 0 ? static_cast<int64_t>(value << unused) >> unused
                                   : static_cast<int64_t>(value));
  }
  return testing::Varints(field.number, values);
}

void WriteV1(const std::vector<Example>& examples, const std::string& path, size_t block_size,
             bool snappy) {
  testing::V1Writer writer;
  for (const Example& example : examples) {
    if (example.has_strings()) {
      std::string values;
      for (const std::string& text : StringsOf(example)) values += testing::BytesField(8, text);
      writer.Add(example.name, example.dtype, example.dims, values);
    } else if (example.slices.empty()) {
      writer.Add(example.name, example.dtype, example.dims,
                 ValuesMessage(example.dtype, example.bytes));
    } else {
      writer.List(example.name, example.dtype, example.dims, example.slices);
      for (const Box& slice : example.slices) {
        const std::string cut =
            testing::CutOut(example.bytes, example.dims, slice, example.item_size());
        writer.Store(example.name, slice, ValuesMessage(example.dtype, cut));
      }
    }
  }
  std::ofstream(path, std::ios::binary) << writer.Finish(block_size, snappy);
}

void WriteSlice(const Example& example, const std::optional<Box>& box, std::string bytes,
                uint32_t masked_checksum, size_t step, BundleWriter* writer) {
  const SliceInfo info{example.name, example.dtype, example.dims, box};
  writer->Reserve(info);
  const Placement place = writer->Allocate(bytes.size());
  for (size_t at = 0; at == 0 || at < bytes.size(); at += step) {  // once if there are no bytes
    const std::string part = bytes.substr(at, step);
    Require(writer->Write(place, at, AsBytes(part)) == crc32c::Value(part.data(), part.size()));
  }
  writer->Record(info, place, masked_checksum);
}

// Writes the tensors slice by slice with BundleWriter, `step` bytes at a time.
void WriteNew(const std::vector<Example>& examples, const std::string& prefix,
              const BundleWriterOptions& options, size_t step) {
  BundleWriter writer(prefix, options);
  for (const Example& example : examples) {
    const auto write = [&](const std::optional<Box>& box, const std::string& bytes, uint32_t crc) {
      WriteSlice(example, box, bytes, crc32c::Mask(crc), step, &writer);
    };
    if (example.has_strings()) {
      const auto [bytes, crc] = StoredStrings(example);
      write(std::nullopt, bytes, crc);
    } else if (example.slices.empty()) {
      write(std::nullopt, example.bytes, crc32c::Value(example.bytes.data(), example.bytes.size()));
    }
    for (const Box& slice : example.slices) {
      const std::string cut =
          testing::CutOut(example.bytes, example.dims, slice, example.item_size());
      write(slice, cut, crc32c::Value(cut.data(), cut.size()));
    }
  }
  writer.Publish();
}

void CopyAll(const std::shared_ptr<const Checkpoint>& checkpoint, const std::string& prefix,
             const BundleWriterOptions& options) {
  Require(CanCopySlices(*checkpoint));
  BundleWriter writer(prefix, options);
  std::vector<TensorCopy> copies;
  for (const Tensor& tensor : checkpoint->catalog().tensors) {
    copies.push_back({checkpoint, &tensor, std::string(tensor.name)});
  }
  CopyTensors(&writer, copies, [](uint64_t) {});
  writer.Publish();
}

// ---- Reading. Every function compares what it reads with the example.

// A tensor of an open checkpoint and its example.
struct Pair {
  const Checkpoint& checkpoint;
  const Tensor& tensor;
  const Example& example;
};

void CheckBox(const Pair& pair, Input* input) {
  Box box;
  for (const int64_t dim : pair.example.dims) {
    if (dim == 0) return;
    const int64_t start = input->Below(dim);
    box.push_back({start, 1 + input->Below(dim - start)});
  }
  const std::string expected =
      testing::CutOut(pair.example.bytes, pair.example.dims, box, pair.example.item_size());
  const uint8_t choice = input->Byte();
  const ReadOptions options{.threads = choice % 16 == 15 ? 2 : 1,
                            .verify = choice / 2 % 2 == 0,
                            .verify_partial = choice / 4 % 2 == 1};
  std::string out(expected.size(), '\xee');
  const MutableByteSpan bytes(reinterpret_cast<uint8_t*>(out.data()), out.size());
  ReadBox(pair.checkpoint, pair.tensor, box, bytes, options);
  Require(out == expected);
  const auto partial = ReadBoxWithChecksums(pair.checkpoint, pair.tensor, box, bytes, options);
  Require(out == expected);
  VerifyChecksums(pair.checkpoint, pair.tensor, partial, 1);
  uint64_t stored = 0;
  for (const FileRange& range : RangesOfBox(pair.checkpoint, pair.tensor, box)) {
    stored += range.size;
  }
  Require(stored > 0 && InspectRanges(pair.checkpoint, pair.tensor,
                                      RangesOfBox(pair.checkpoint, pair.tensor, box))
                                .num_bytes == stored);
}

void CheckView(const Pair& pair) {
  const TensorView view = ViewTensor(pair.checkpoint, pair.tensor);
  if (view) Require(AsText(view.bytes) == pair.example.bytes);
  const TensorView copy = CopyOnWriteTensor(pair.checkpoint, pair.tensor);
  if (copy) Require(AsText(copy.bytes) == pair.example.bytes);
}

void CheckRows(const Pair& pair, Input* input) {
  const int64_t num_rows = pair.example.dims[0];
  const RowLayout layout = LayOutRows(pair.checkpoint, pair.tensor);
  if (num_rows == 0) return;
  const size_t row_size = pair.example.bytes.size() / static_cast<size_t>(num_rows);
  Require(layout.row_size == row_size);
  std::vector<int64_t> ids(static_cast<size_t>(input->Below(10)));
  std::string expected;
  for (int64_t& id : ids) {
    id = input->Below(num_rows);
    expected += pair.example.bytes.substr(static_cast<size_t>(id) * row_size, row_size);
    if (input->Byte() % 4 == 3) id -= num_rows;
  }
  std::string out(expected.size(), '\xee');
  GatherRows(pair.checkpoint, pair.tensor, layout, std::span<const int64_t>(ids), {},
             {reinterpret_cast<uint8_t*>(out.data()), out.size()}, 1);
  Require(out == expected);
}

void CheckRowReader(const Pair& pair, Input* input) {
  RowReader reader(pair.checkpoint, pair.tensor, {});
  if (reader.row_size() == 0) return;
  const auto rows = static_cast<uint64_t>(1 + input->Below(kMaxDim));
  std::string all;
  while (all.size() < pair.example.bytes.size()) {
    std::vector<uint8_t> buffer(rows * reader.row_size());
    RowBatch batch = reader.Plan(buffer);
    reader.Read(&batch, 1);
    reader.Finish(&batch);
    const auto count = static_cast<uint64_t>(batch.end_row - batch.first_row);
    Require(count >= 1 && count <= rows);
    all += AsText(ByteSpan(buffer).first(count * reader.row_size()));
  }
  Require(all == pair.example.bytes);
}

void CheckStrings(const Pair& pair) {
  const std::vector<std::string> expected = StringsOf(pair.example);
  const StoredSlice& slice = pair.checkpoint.catalog().Slices(pair.tensor)[0];
  if (slice.encoding == Encoding::kRecord) {
    Require(pair.checkpoint.records()->DecodeStrings(pair.tensor, slice) == expected);
    return;
  }
  const StringElements elements = ReadStrings(pair.checkpoint, pair.tensor, slice, true);
  Require(elements.size() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) Require(elements[i] == expected[i]);
}

// Streams all tensors through a thread.
void CheckStream(const std::shared_ptr<const Checkpoint>& checkpoint,
                 const std::vector<Example>& examples, Input* input) {
  PrefetchOptions options;
  options.rows = input->Below(4);
  options.max_ahead = static_cast<uint64_t>(input->Byte());
  for (size_t i = 0; i < examples.size(); ++i) options.tensors.push_back(i);
  std::vector<std::string> all(examples.size());
  Prefetcher stream(checkpoint, options);
  StreamItem item;
  for (auto status = Prefetcher::Status::kWaiting; status != Prefetcher::Status::kEnd;) {
    status = stream.Next(std::chrono::milliseconds(100), &item);
    if (status != Prefetcher::Status::kReady || !item.has_bytes || item.num_rows == 0) continue;
    const Example& example = examples[item.tensor];
    const auto num_rows = static_cast<size_t>(example.dims.empty() ? 1 : example.dims[0]);
    const size_t size = example.bytes.size() / num_rows * static_cast<size_t>(item.num_rows);
    all[item.tensor] += AsText({item.buffer->data(), size});
  }
  for (size_t i = 0; i < examples.size(); ++i) {
    Require(examples[i].has_strings() || all[i] == examples[i].bytes);
  }
}

// Reads everything in every way. The examples are in the order of their names.
void CheckCheckpoint(const std::shared_ptr<const Checkpoint>& checkpoint,
                     const std::vector<Example>& examples, Input input) {
  const Catalog& catalog = checkpoint->catalog();
  Require(catalog.tensors.size() == examples.size());
  std::vector<size_t> all;
  for (size_t i = 0; i < examples.size(); ++i) {
    all.push_back(i);
    const Pair pair{*checkpoint, catalog.tensors[i], examples[i]};
    Require(pair.tensor.name == pair.example.name && pair.tensor.dtype == pair.example.dtype);
    Require(std::ranges::equal(catalog.Shape(pair.tensor), pair.example.dims));
    Require(pair.tensor.num_slices == std::max<size_t>(1, pair.example.slices.size()));
    if (pair.example.has_strings()) {
      CheckStrings(pair);
      continue;
    }
    CheckBox(pair, &input);
    CheckView(pair);
    if (!pair.example.dims.empty()) CheckRows(pair, &input);
    CheckRowReader(pair, &input);
  }
  if (input.Byte() % 4 == 3) CheckStream(checkpoint, examples, &input);
  Require(VerifyTensors(*checkpoint, all, 1, [](uint64_t) {}).corruptions.empty());
}

// ---- One input.

// How the files of a checkpoint are read.
class Access {
 public:
  explicit Access(Input* input) : way_(static_cast<size_t>(input->Below(4))) {}

  std::shared_ptr<const Checkpoint> OpenV1(const std::string& path) const {
    testing::LocalRequests::Take();  // forgets those of the last checkpoint
    if (way_ == kRequests) {
      return tensorbundle::OpenV1({path}, IoMode::kPread, &testing::OpenByRequests);
    }
    return tensorbundle::OpenV1({path}, kModes[way_]);
  }
  std::shared_ptr<const Checkpoint> OpenV2(const std::string& prefix) const {
    if (way_ == kRequests) return testing::OpenThroughRequests(prefix);
    return Checkpoint::OpenBundle(prefix, kModes[way_]);
  }

 private:
  static constexpr IoMode kModes[] = {IoMode::kAuto, IoMode::kMmap, IoMode::kPread};
  static constexpr size_t kRequests = 3;

  size_t way_;
};

// A directory in memory, emptied for every input.
class Directory {
 public:
  Directory() {
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  void Clear() const {
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      std::filesystem::remove_all(entry.path());
    }
  }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_ =
      (std::filesystem::exists("/dev/shm") ? std::string("/dev/shm")
                                           : std::filesystem::temp_directory_path().string()) +
      "/fuzz_checkpoints-XXXXXX";
};

// Changes a byte of a data file, which the checksums must show.
void CheckCorruption(const std::string& prefix, int32_t num_shards, const Input& rest) {
  Input input = rest;
  const int32_t shard = static_cast<int32_t>(input.Below(num_shards));
  const std::string path = DataFilePath(prefix, shard, num_shards);
  std::error_code no_file;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, no_file));
  if (no_file || size == 0) return;
  const int64_t at = input.Below(size);
  const auto change = static_cast<char>(1 << input.Byte() % 8);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const auto byte = static_cast<char>(file.get() ^ change);
    file.seekp(at);
    file.put(byte);
  }
  // OpenBundle() would wait: it finds the damage, and might be in the middle of a replacement.
  const Checkpoint checkpoint(ReadBundleIndex(prefix).catalog, 0, IoMode::kPread, nullptr);
  std::vector<size_t> all;
  for (size_t i = 0; i < checkpoint.catalog().tensors.size(); ++i) all.push_back(i);
  Require(!VerifyTensors(checkpoint, all, 1, [](uint64_t) {}).corruptions.empty());
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  using namespace tensorbundle::fuzz;
  static const Directory directory;
  Input input(data, size);
  const Access access(&input);
  const uint8_t choice = input.Byte();
  const bool big_endian = choice % 4 == 3;
  const int32_t num_shards = 1 + choice / 4 % 3;
  std::vector<Example> examples;
  for (int64_t i = 0; i <= choice / 16 % kMaxTensors; ++i) {
    examples.insert(examples.begin(), MakeExample(i, &input));  // "aat/2" < "at/1" < "t/0"
  }
  if (big_endian) std::erase_if(examples, [](const Example& e) { return e.has_strings(); });

  if (!examples.empty()) {
    WriteV1(examples, directory / "v1", 1 + input.Byte() * size_t{16}, input.Byte() % 2 == 1);
    CheckCheckpoint(access.OpenV1(directory / "v1"), examples, input);
  }
  WriteV2(examples, directory / "v2", num_shards, big_endian);
  CheckCheckpoint(access.OpenV2(directory / "v2"), examples, input);

  const BundleWriterOptions options{.num_shards = 1 + input.Byte() % 3,
                                    .alignment = uint64_t{1} << input.Below(13),
                                    .threads = input.Byte() % 16 == 15 ? 2 : 1};
  const auto check = [&](const char* name) {
    CheckCheckpoint(access.OpenV2(directory / name), examples, input);
  };
  const uint8_t rewrite = input.Byte() % 3;  // one of the three, because each takes milliseconds
  if (rewrite == 0 || big_endian) {
    AlignPlan(directory / "v2", kSmallAlignment << input.Below(8))
        .Write(directory / "aligned", options.threads, [](uint64_t) {});
    check("aligned");
  } else if (rewrite == 1) {
    CopyAll(access.OpenV2(directory / "v2"), directory / "copy", options);
    check("copy");
  } else {
    WriteNew(examples, directory / "new", options, 1 + input.Byte());
    check("new");
  }
  CheckCorruption(directory / "v2", num_shards, input);
  directory.Clear();
  return 0;
}
