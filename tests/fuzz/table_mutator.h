// SPDX-License-Identifier: Apache-2.0
// Table files for fuzz targets: checksums corrected after a mutation, and mutations that keep the
// table valid.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz_input.h"
#include "table_builder.h"
#include "tensorbundle/base/arena.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/byte_source.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/format.h"
#include "tensorbundle/table/table.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace tensorbundle::fuzz {

// Returns the handles of the blocks that can be found: of the metaindex, of the data blocks, and of
// the index last.
inline std::vector<BlockHandle> FindBlocks(const std::string& file) {
  std::vector<BlockHandle> blocks;
  if (file.size() < kFooterSize) return blocks;
  const auto footer = DecodeFooter(AsBytes(file).last(kFooterSize));
  if (!footer) return blocks;
  const uint64_t end = file.size() - kFooterSize;
  if (footer->metaindex.FitsBefore(end)) blocks.push_back(footer->metaindex);
  if (!footer->index.FitsBefore(end)) return blocks;
  const std::string index = file.substr(footer->index.offset, footer->index.size);
  ByteArena keys;
  ExpansionLimit limit(file.size());
  BlockIterator entries(&keys, &limit);
  entries.Open(AsBytes(index));
  while (entries.Next()) {
    BlockHandle handle;
    const uint8_t* p = entries.value().data();
    if (DecodeBlockHandle(p, p + entries.value().size(), &handle) != nullptr &&
        handle.FitsBefore(end)) {
      blocks.push_back(handle);
    }
  }
  blocks.push_back(footer->index);
  return blocks;
}

// Corrects the magic number and the checksums of the blocks of a file, as far as the blocks can be
// found.
inline std::string WithChecksums(std::string file) {
  if (file.size() < kFooterSize) return file;
  file.replace(file.size() - 8, 8, "\x57\xfb\x80\x8b\x24\x75\x47\xdb");
  for (const BlockHandle& block : FindBlocks(file)) {
    testing::TableBuilder::FixChecksum({block.offset, block.size}, &file);
  }
  return file;
}

using Records = std::map<std::string, std::string>;

// Returns the records of a table up to its first error.
inline Records ReadRecords(const std::string& file) {
  Records records;
  try {
    const Table table = Table::Open(
        std::make_shared<MemorySource>("table", std::vector<uint8_t>(file.begin(), file.end())));
    ByteArena keys;
    TableIterator iterator(table, &keys);
    while (iterator.Next()) records[std::string(iterator.key())] = AsText(iterator.value());
  } catch (const Error&) {
  }
  return records;
}

inline std::string BuildTable(const Records& records, size_t block_size) {
  testing::TableBuilder table(block_size, 4);
  for (const auto& [key, value] : records) table.Add(key, value);
  return table.Finish();
}

// Applies LLVMFuzzerMutate to a string.
inline std::string Mutated(std::string_view text, size_t max_size) {
  std::vector<uint8_t> bytes(std::max(text.size(), max_size) + 1);
  std::copy(text.begin(), text.end(), bytes.begin());
  const size_t size = LLVMFuzzerMutate(bytes.data(), text.size(), std::max<size_t>(max_size, 1));
  return {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size)};
}

// Mutates one record and builds the table again, in blocks of another size.
inline std::string MutateRecords(const std::string& file, std::minstd_rand* random) {
  constexpr size_t kGrowth = 64;
  Records records = ReadRecords(file);
  if (records.empty()) return file;
  const auto at = std::next(records.begin(), static_cast<ptrdiff_t>((*random)() % records.size()));
  std::pair<std::string, std::string> record = *at;
  switch ((*random)() % 4) {
    case 0:  // another key
      records.erase(at);
      record.first = Mutated(record.first, record.first.size() + kGrowth);
      break;
    case 1:  // a copy with a similar key
      record.first = Mutated(record.first, record.first.size() + kGrowth);
      break;
    default:
      record.second = Mutated(record.second, record.second.size() + kGrowth);
  }
  records[record.first] = record.second;
  return BuildTable(records, 64 << (*random)() % 8);
}

// Mutates the bytes of one block, whose size stays the same.
inline std::string MutateBlock(std::string file, std::minstd_rand* random) {
  const std::vector<BlockHandle> blocks = FindBlocks(file);
  if (blocks.empty()) return file;
  const BlockHandle& block = blocks[(*random)() % blocks.size()];
  const std::string bytes = Mutated(std::string_view(file).substr(block.offset, block.size),
                                    static_cast<size_t>(block.size));
  file.replace(block.offset, bytes.size(), bytes);
  return file;
}

// Mutates a table file: its records, the bytes of a block, or any byte.
inline std::string MutateTable(std::string_view file, size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  const std::string valid = WithChecksums(std::string(file));
  switch (random() % 4) {
    case 0:
      return MutateRecords(valid, &random);
    case 1:
      return WithChecksums(MutateBlock(valid, &random));
    default:
      return WithChecksums(Mutated(file, max_size));
  }
}

// Whether the first byte of an input says that a table file follows.
inline bool IsFile(uint8_t kind) { return kind % 4 == 0 || kind % 4 == 3; }

// The mutator of a target whose inputs are a kind and its bytes.
inline size_t MutateInput(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  if (size < 2 || !IsFile(data[0])) return LLVMFuzzerMutate(data, size, max_size);
  const std::string file =
      MutateTable(AsText({data + 1, size - 1}), max_size - 1, seed).substr(0, max_size - 1);
  std::copy(file.begin(), file.end(), data + 1);
  return file.size() + 1;
}

}  // namespace tensorbundle::fuzz
