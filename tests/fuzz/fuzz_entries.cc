// SPDX-License-Identifier: Apache-2.0
// The messages of a V2 index. The first byte selects what the others are:
//
//   0  a BundleEntryProto: what is decoded must survive encoding
//   1  a BundleHeaderProto: likewise
//   2  the name and the extents of a slice, whose key must be recognized; and a key as it is
//   3  records of a valid table: the header, then names with entries. The records of the slices of
//      an entry get their right keys, so that the input need not contain them
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "catalog_checks.h"
#include "fuzz_input.h"
#include "table_mutator.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/bundle/messages.h"
#include "tensorbundle/bundle/slice_key.h"

namespace tensorbundle::fuzz {
namespace {

bool SameFields(const BundleEntry& a, const BundleEntry& b) {
  return a.dtype == b.dtype && a.dims == b.dims && a.shard == b.shard && a.size == b.size &&
         a.masked_checksum == b.masked_checksum && a.num_slices == b.num_slices &&
         a.slice_extents == b.slice_extents;
}

// Whether the encoder accepts the slices.
bool HasEncodableSlices(const BundleEntry& entry) {
  for (const Extent& extent : entry.slice_extents) {
    if (extent.start < 0 || extent.length < kFullLength) return false;
    if (extent.length == kFullLength && extent.start != 0) return false;
  }
  return true;
}

void CheckEntry(Input input) {
  const auto offset = static_cast<uint64_t>(input.Int64()) >> 1;
  const std::string message(input.Rest());
  BundleEntry entry;
  if (!DecodeBundleEntry(AsBytes(message), &entry)) return;
  Require(entry.dims.size() <= kMaxRank);
  Require(entry.slice_extents.size() == entry.num_slices * entry.dims.size());
  BundleEntry moved;
  Require(DecodeBundleEntry(AsBytes(WithOffset(AsBytes(message), offset)), &moved));
  Require(SameFields(moved, entry) && moved.offset == static_cast<int64_t>(offset));
  if (!HasEncodableSlices(entry)) return;
  BundleEntry again;
  Require(DecodeBundleEntry(AsBytes(EncodeBundleEntry(entry)), &again));
  Require(SameFields(again, entry) && again.offset == entry.offset);
}

void CheckHeader(Input input) {
  try {
    const BundleHeader header = DecodeBundleHeader(AsBytes(input.Rest()), "fuzz.index");
    Require(header.num_shards >= 1 && header.num_shards <= kMaxShards);
    const BundleHeader again = DecodeBundleHeader(AsBytes(EncodeBundleHeader(header)), "");
    Require(again.num_shards == header.num_shards && again.big_endian == header.big_endian);
  } catch (const Error&) {
  }
}

void CheckSliceKey(Input input) {
  const std::string_view name = input.String();
  Box box(static_cast<size_t>(input.Below(5)));
  for (Extent& extent : box) extent = {input.Int64(), input.Int64()};
  const std::string key = SliceKey(name, box);
  Require(IsSliceKey(key));
  Require(!IsSliceKey(std::string_view(key).substr(0, key.size() - 1)));
  Require(!IsSliceKey(key + '\x01'));
  IsSliceKey(input.Rest());
}

void CheckTable(Input input) {
  Records records;
  records[""] = std::string(input.String());
  while (input.more() && records.size() < 64) {
    const std::string name(input.String());
    const std::string message(input.String());
    records[name] = message;
    BundleEntry entry;
    if (!DecodeBundleEntry(AsBytes(message), &entry)) continue;
    const size_t rank = entry.dims.size();
    const std::string slice_record(entry.num_slices > 0 ? input.String() : "");
    for (uint64_t i = 0; i < entry.num_slices && records.size() < 64; ++i) {
      const auto slice = std::span<const Extent>(entry.slice_extents).subspan(i * rank, rank);
      // The first slice has the record of the input, the others records that fit.
      BundleEntry stored;
      stored.dtype = entry.dtype;
      const auto box = NormalizeSlice(slice, entry.dims);
      if (box) stored.dims = Lengths(*box);
      stored.offset = static_cast<int64_t>(i);
      stored.size = input.Byte();
      records[SliceKey(name, slice)] = i == 0 ? slice_record : EncodeBundleEntry(stored);
    }
  }
  CheckIndex(BuildTable(records, 256));
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle::fuzz;
  Input input(data, size);
  switch (input.Byte() % 4) {
    case 0:
      CheckEntry(input);
      break;
    case 1:
      CheckHeader(input);
      break;
    case 2:
      CheckSliceKey(input);
      break;
    default:
      CheckTable(input);
  }
  return 0;
}
