// SPDX-License-Identifier: Apache-2.0
// The bytes are the index of a V2 checkpoint. Checksums are corrected, because mutations would
// never pass them otherwise. The first byte selects whether the rest is a file, a block or records.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "table_builder.h"
#include "tensorbundle/base/checked.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/slice_cover.h"
#include "tensorbundle/table/block.h"
#include "tensorbundle/table/format.h"

namespace tensorbundle {
namespace {

using testing::BlockPlace;
using testing::TableBuilder;

void FixBlock(const BlockHandle& handle, std::string* file) {
  if (!handle.FitsBefore(file->size() - kFooterSize)) return;
  TableBuilder::FixChecksum({handle.offset, handle.size}, file);
}

// Corrects the checksums of the blocks of a file, as far as the blocks can be found.
std::string WithChecksums(std::string file) {
  if (file.size() < kFooterSize) return file;
  file.replace(file.size() - 8, 8, "\x57\xfb\x80\x8b\x24\x75\x47\xdb");
  const auto footer = DecodeFooter(AsBytes(file).last(kFooterSize));
  if (!footer) return file;
  FixBlock(footer->metaindex, &file);
  if (!footer->index.FitsBefore(file.size() - kFooterSize)) return file;
  const std::string index = file.substr(footer->index.offset, footer->index.size);
  ByteArena keys;
  ExpansionLimit limit(file.size());
  BlockIterator entries(&keys, &limit);
  entries.Open(AsBytes(index));
  while (entries.Next()) {
    BlockHandle handle;
    const uint8_t* p = entries.value().data();
    if (DecodeBlockHandle(p, p + entries.value().size(), &handle) != nullptr) {
      FixBlock(handle, &file);
    }
  }
  FixBlock(footer->index, &file);
  return file;
}

// A table whose one data block is the bytes.
std::string AroundBlock(std::string_view block, char type) {
  testing::BlockBuilder index(1);
  std::string handle;
  testing::AppendVarint(0, &handle);
  testing::AppendVarint(block.size(), &handle);
  index.Add("\xff\xff\xff\xff", handle);
  const std::string metaindex = testing::BlockBuilder(1).Finish();
  const std::string index_block = index.Finish();
  std::string file(block);
  file += type + std::string(4, '\0') + metaindex + std::string(5, '\0') + index_block +
          std::string(5, '\0');
  std::string footer;
  testing::AppendVarint(block.size() + kTrailerSize, &footer);
  testing::AppendVarint(metaindex.size(), &footer);
  testing::AppendVarint(block.size() + metaindex.size() + 2 * kTrailerSize, &footer);
  testing::AppendVarint(index_block.size(), &footer);
  footer.resize(kFooterSize);
  return WithChecksums(file + footer);
}

// A valid table of the records in the bytes: size of the key, key, size of the value, value.
std::string OfRecords(std::string_view bytes) {
  std::map<std::string, std::string> records = {{"", std::string("\x08\x03\x1a\x02\x08\x01", 6)}};
  const auto take = [&] {
    if (bytes.empty()) return std::string();
    const size_t size = std::min<size_t>(static_cast<uint8_t>(bytes[0]), bytes.size() - 1);
    const std::string part(bytes.substr(1, size));
    bytes.remove_prefix(1 + size);
    return part;
  };
  while (!bytes.empty()) {
    const std::string key = take();
    records[key] = take();
  }
  TableBuilder table(256, 4);
  for (const auto& [key, value] : records) table.Add(key, value);
  return table.Finish();
}

std::string MakeFile(char kind, std::string_view rest) {
  switch (static_cast<uint8_t>(kind) % 4) {
    case 0:
      return WithChecksums(std::string(rest));
    case 1:
      return AroundBlock(rest, 0);
    case 2:
      return AroundBlock(rest, 1);
    default:
      return OfRecords(rest);
  }
}

void Require(bool condition) {
  if (!condition) std::abort();
}

// Checks the invariants of Catalog.
void CheckCatalog(const Catalog& catalog) {
  for (size_t i = 0; i < catalog.tensors.size(); ++i) {
    const Tensor& tensor = catalog.tensors[i];
    Require(i == 0 || catalog.tensors[i - 1].name < tensor.name);
    Require(catalog.Find(tensor.name) == i);
    Require(CheckedVolume(catalog.Shape(tensor)) == tensor.num_elements);
    const DataTypeInfo* info = FindDataType(tensor.dtype);
    for (const StoredSlice& slice : catalog.Slices(tensor)) {
      Require(slice.file < catalog.files.size());
      Require(RangeFits(slice.offset, slice.size, INT64_MAX));
      const Box box = catalog.BoxOf(tensor, slice);
      Require(box.size() == tensor.rank);
      for (size_t axis = 0; axis < box.size(); ++axis) {
        const int64_t dim = catalog.Shape(tensor)[axis];
        Require(box[axis].start >= 0 && box[axis].length >= 0 &&
                box[axis].length <= dim - box[axis].start);
      }
      if (info != nullptr && info->item_size > 0)
        Require(slice.size == Volume(box) * info->item_size);
    }
    if (tensor.num_elements == 0) continue;
    const Box whole = WholeBox(catalog.Shape(tensor));
    try {
      FindFileRange(catalog, tensor, whole);
      FindOverlaps(catalog, tensor, whole);
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace tensorbundle

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  if (size == 0) return 0;
  const std::string file = MakeFile(static_cast<char>(data[0]), AsText({data + 1, size - 1}));
  try {
    const auto source = std::make_shared<MemorySource>(
        "fuzz.index", std::vector<uint8_t>(file.begin(), file.end()));
    CheckCatalog(ReadBundleIndex("fuzz", source).catalog);
  } catch (const Error&) {
  }
  return 0;
}
