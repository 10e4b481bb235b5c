// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/header.h"

#include "tensorbundle/base/coding.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/base/wire.h"

namespace tensorbundle {
namespace {

constexpr int32_t kOurVersion = 1;

// VersionDef: producer = 1, min_consumer = 2, bad_consumers = 3 (packed or not).
// BundleHeaderProto: num_shards = 1, endianness = 2, version = 3.
constexpr uint32_t kProducer = 1, kMinConsumer = 2, kBadConsumers = 3;
constexpr uint32_t kNumShards = 1, kEndianness = 2, kVersion = 3;

bool ListsOurVersion(const WireField& field, bool* listed) {
  int32_t version = 0;
  if (field.type == WireType::kVarint) {
    if (!AsInt32(field.value, &version)) return false;
    *listed |= version == kOurVersion;
    return true;
  }
  if (field.type != WireType::kBytes) return false;
  const uint8_t* p = field.bytes.data();
  const uint8_t* limit = p + field.bytes.size();
  while (p != limit) {
    uint64_t value = 0;
    p = DecodeVarint64(p, limit, &value);
    if (p == nullptr || !AsInt32(value, &version)) return false;
    *listed |= version == kOurVersion;
  }
  return true;
}

[[noreturn]] void ThrowBadHeader(const std::string& path, const std::string& what) {
  throw CorruptionError(path + ": bad bundle header: " + what);
}

}  // namespace

void CheckVersion(ByteSpan version_def, const std::string& path) {
  int32_t producer = 0;
  int32_t min_consumer = 0;
  bool is_bad = false;
  WireReader reader(version_def);
  WireField field;
  bool ok = true;
  while (ok && reader.Next(&field)) {
    if (field.number == kProducer || field.number == kMinConsumer) {
      ok = field.type == WireType::kVarint &&
           AsInt32(field.value, field.number == kProducer ? &producer : &min_consumer);
    } else if (field.number == kBadConsumers) {
      ok = ListsOurVersion(field, &is_bad);
    }
  }
  if (!ok || !reader.ok()) throw CorruptionError(path + ": its version is malformed");
  if (producer < 0) {
    throw CorruptionError(path + ": its producer's version " + std::to_string(producer) +
                          " is negative");
  }
  if (min_consumer > kOurVersion) {
    throw UnsupportedError(path + " needs a reader of checkpoint version " +
                           std::to_string(min_consumer) + ", this one reads version " +
                           std::to_string(kOurVersion));
  }
  if (is_bad) {
    throw UnsupportedError(path + ": its writer excludes readers of checkpoint version " +
                           std::to_string(kOurVersion) + ", such as this one");
  }
}

BundleHeader DecodeBundleHeader(ByteSpan message, const std::string& path) {
  BundleHeader header;
  uint64_t endianness = 0;
  WireReader reader(message);
  WireField field;
  uint32_t seen = 0;
  while (reader.Next(&field)) {
    if (field.number < kNumShards || field.number > kVersion) continue;
    const WireType wanted = field.number == kVersion ? WireType::kBytes : WireType::kVarint;
    const uint32_t bit = 1U << field.number;
    if (field.type != wanted || (seen & bit) != 0) {
      ThrowBadHeader(path, "field " + std::to_string(field.number) + " is repeated or mistyped");
    }
    seen |= bit;
    if (field.number == kNumShards && !AsInt32(field.value, &header.num_shards)) {
      ThrowBadHeader(path, "the number of shards is not an int32");
    }
    if (field.number == kEndianness) endianness = field.value;
    if (field.number == kVersion) CheckVersion(field.bytes, path);
  }
  if (!reader.ok()) ThrowBadHeader(path, "it is not a protobuf message");
  if (header.num_shards < 1 || header.num_shards > kMaxShards) {
    ThrowBadHeader(path, "it names " + std::to_string(header.num_shards) +
                             " shards, expected 1 to " + std::to_string(kMaxShards));
  }
  if (endianness > 1) {
    ThrowBadHeader(path,
                   "unknown byte order " + std::to_string(endianness) + " (0 is little, 1 is big)");
  }
  header.big_endian = endianness == 1;
  return header;
}

}  // namespace tensorbundle
