// SPDX-License-Identifier: Apache-2.0
// The checkpoints and vocabularies that the driver reads. Every value follows from the seed of its
// tensor and its index, so that each read can be compared without a second copy.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "tensorbundle/bundle/data_type.h"
#include "tensorbundle/bundle/string_codec.h"
#include "tensorbundle/bundle/tensor_slice.h"
#include "v1_builder.h"

namespace tensorbundle::threads {

// Ends the process if a property does not hold.
inline void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "threads_driver: %s\n", what.c_str());
  std::_Exit(1);
}

using Random = std::mt19937;

inline int64_t Below(Random* random, int64_t limit) {
  return static_cast<int64_t>((*random)() % static_cast<uint64_t>(limit));
}

// A matrix of elements of four bytes.
struct Table {
  std::string name;
  DataType dtype;
  int64_t rows;
  int64_t columns;
  uint32_t seed;
  std::vector<Box> slices{};  // none: stored whole

  std::vector<int64_t> dims() const { return {rows, columns}; }

  // The bits of an element: those of a finite float, or of a small integer.
  uint32_t Word(uint64_t index) const {
    return (static_cast<uint32_t>(index) * 2654435761u + seed) & 0x3fffffffu;
  }

  std::string Bytes() const {
    std::string bytes(static_cast<size_t>(rows * columns) * 4, '\0');
    for (uint64_t i = 0; i < bytes.size() / 4; ++i) {
      const uint32_t word = Word(i);
      std::memcpy(bytes.data() + i * 4, &word, 4);
    }
    return bytes;
  }

  // Whether `data` has the elements of a box, row-major.
  bool Equals(const Box& box, const void* data) const {
    const auto* at = static_cast<const uint8_t*>(data);
    for (int64_t row = box[0].start; row < box[0].end(); ++row) {
      for (int64_t column = box[1].start; column < box[1].end(); ++column, at += 4) {
        uint32_t word = 0;
        std::memcpy(&word, at, 4);
        if (word != Word(static_cast<uint64_t>(row * columns + column))) return false;
      }
    }
    return true;
  }
  void Check(const Box& box, const void* data) const {
    Require(Equals(box, data), "wrong values of " + name);
  }
  Box RandomBox(Random* random) const {
    Box box;
    for (const int64_t dim : {rows, columns}) {
      const int64_t start = Below(random, dim);
      box.push_back({start, 1 + Below(random, dim - start)});
    }
    return box;
  }
};

inline std::vector<Box> RowSlices(int64_t rows, int64_t columns, int64_t count) {
  std::vector<Box> slices;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = rows * i / count;
    slices.push_back({{begin, rows * (i + 1) / count - begin}, {0, columns}});
  }
  return slices;
}

// The strings of the tensor "words".
inline std::vector<std::string> Words() {
  std::vector<std::string> words;
  for (int i = 0; i < 500; ++i) {
    words.emplace_back(static_cast<size_t>(i % 40), static_cast<char>(i));
  }
  return words;
}

// A directory that is removed with the object, and the files in it.
class SampleFiles {
 public:
  static constexpr int64_t kTokens = 60'000;

  SampleFiles() {
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    WriteV2();
    WriteV1();
    WriteChanging(0);
    WriteDamaged();
    std::ofstream old_vocab(old_vocab_path());
    std::ofstream new_vocab(new_vocab_path());
    for (int64_t i = 0; i < kTokens; ++i) {
      old_vocab << "token" << i << "\n";
      new_vocab << "token" << 3 * i << "\n";
    }
  }
  ~SampleFiles() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  SampleFiles(const SampleFiles&) = delete;
  SampleFiles& operator=(const SampleFiles&) = delete;

  std::string operator/(const std::string& name) const { return folder_ + "/" + name; }
  std::string v2() const { return *this / "v2"; }
  std::string v1() const { return *this / "v1"; }
  std::string changing() const { return *this / "changing"; }
  std::string damaged() const { return *this / "damaged"; }
  std::string old_vocab_path() const { return *this / "old.txt"; }
  std::string new_vocab_path() const { return *this / "new.txt"; }

  // The row of the old vocabulary that has the token in a row of the new one, or -1.
  static int64_t OldRow(int64_t row, int64_t old_size = kTokens) {
    return 3 * row < old_size ? 3 * row : -1;
  }

  // Of the V2 checkpoint, which also has the strings "words". "big" begins its file, so that it can
  // be mapped for TensorFlow; it and "grid" have slices that a ledger verifies.
  static const std::vector<Table>& V2Tables() {
    static const std::vector<Table> tables = {
        {"big", DataType::kFloat, 36'000, 64, 1},
        {"grid",
         DataType::kInt32,
         1200,
         500,
         2,
         {{{0, 600}, {0, 250}},
          {{0, 600}, {250, 250}},
          {{600, 600}, {0, 250}},
          {{600, 600}, {250, 250}}}},
        {"rows", DataType::kFloat, 3000, 32, 3, RowSlices(3000, 32, 3)},
        {"small", DataType::kInt32, 7, 3, 4},
    };
    return tables;
  }
  static const std::vector<Table>& V1Tables() {
    static const std::vector<Table> tables = {
        {"dense", DataType::kFloat, 900, 40, 5, RowSlices(900, 40, 2)},
        {"encoded", DataType::kInt32, 100, 9, 6},
        {"large", DataType::kFloat, 9000, 32, 7},
    };
    return tables;
  }

  // The tensor of the changing checkpoint in one of its two versions.
  static Table ChangingTable(int version) {
    return {"rows",
            DataType::kFloat,
            4000,
            32,
            8 + static_cast<uint32_t>(version),
            RowSlices(4000, 32, 2)};
  }

  // Replaces the changing checkpoint, the data files first. Threads: one at a time.
  void WriteChanging(int version) const {
    testing::BundleBuilder builder(2);
    AddTable(ChangingTable(version), 0, &builder);
    builder.Write(*this / "next");
    for (const char* suffix : {".data-00000-of-00002", ".data-00001-of-00002", ".index"}) {
      std::filesystem::rename(*this / "next" + suffix, changing() + suffix);
    }
  }

 private:
  static void AddTable(const Table& table, int32_t shard, testing::BundleBuilder* builder) {
    if (table.slices.empty()) {
      builder->Add(table.name, table.dtype, table.dims(), table.Bytes(), shard);
    } else {
      builder->AddSliced(table.name, table.dtype, table.dims(), table.Bytes(), table.slices);
    }
  }

  void WriteV2() const {
    testing::BundleBuilder builder(3);
    int32_t shard = 0;
    for (const Table& table : V2Tables()) AddTable(table, shard++ % 3, &builder);
    std::vector<ByteSpan> spans;
    const std::vector<std::string> words = Words();
    for (const std::string& word : words) spans.push_back(AsBytes(word));
    ElementsChecksum checksum(Encoding::kStrings, false);
    std::string bytes = EncodeStringLengths(spans, &checksum);
    for (const std::string& word : words) {
      checksum.AddPayload(AsBytes(word));
      bytes += word;
    }
    testing::Record record =
        builder.Store(DataType::kString, {static_cast<int64_t>(words.size())}, bytes, 2);
    record.crc = checksum.value();
    builder.Put("words", record.Message());
    builder.Write(v2());
  }

  void WriteV1() const {
    testing::V1Writer writer;
    for (const Table& table : V1Tables()) {
      const std::string bytes = table.Bytes();
      const auto message = [&](const std::string& part) {
        if (table.dtype == DataType::kFloat) return testing::BytesField(5, part);
        std::vector<int64_t> values;
        for (size_t at = 0; at < part.size(); at += 4) {
          int32_t value = 0;
          std::memcpy(&value, part.data() + at, 4);
          values.push_back(value);
        }
        return testing::Varints(7, values);
      };
      if (table.slices.empty()) {
        writer.Add(table.name, table.dtype, table.dims(), message(bytes));
        continue;
      }
      writer.List(table.name, table.dtype, table.dims(), table.slices);
      for (const Box& slice : table.slices) {
        writer.Store(table.name, slice, message(testing::CutOut(bytes, table.dims(), slice, 4)));
      }
    }
    std::ofstream(v1(), std::ios::binary) << writer.Finish(1 << 12);
  }

  // One table whose last byte differs from its checksum.
  void WriteDamaged() const {
    testing::BundleBuilder builder;
    AddTable(V2Tables()[0], 0, &builder);
    builder.data().back() ^= 1;
    builder.Write(damaged());
  }

  std::string folder_ = std::filesystem::temp_directory_path().string() + "/threads-XXXXXX";
};

}  // namespace tensorbundle::threads
