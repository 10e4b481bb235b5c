// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/messages.h"

#include <gtest/gtest.h>

#include <string>

#include "bundle_builder.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BytesField;
using testing::Fixed32Field;
using testing::VarintField;

BundleHeader Decode(const std::string& message) {
  return DecodeBundleHeader(AsBytes(message), "p.index");
}

std::string WithVersion(const std::string& version) {
  return VarintField(1, 1) + BytesField(3, version);
}

TEST(BundleHeader, AsTensorFlowWritesIt) {
  const BundleHeader header = Decode(WithVersion(VarintField(1, 1)));
  EXPECT_EQ(header.num_shards, 1);
  EXPECT_FALSE(header.big_endian);
}

TEST(BundleHeader, NumberOfShards) {
  EXPECT_EQ(Decode(VarintField(1, kMaxShards)).num_shards, kMaxShards);
  EXPECT_THROW(Decode(""), CorruptionError);
  EXPECT_THROW(Decode(VarintField(1, 0)), CorruptionError);
  EXPECT_THROW(Decode(VarintField(1, kMaxShards + 1)), CorruptionError);
  EXPECT_THROW(Decode(VarintField(1, UINT64_MAX)), CorruptionError);
  EXPECT_THROW(Decode(VarintField(1, (uint64_t{1} << 32) + 1)), CorruptionError);
}

TEST(BundleHeader, ByteOrder) {
  EXPECT_TRUE(Decode(VarintField(1, 1) + VarintField(2, 1)).big_endian);
  EXPECT_FALSE(Decode(VarintField(1, 1) + VarintField(2, 0)).big_endian);
  EXPECT_THROW(Decode(VarintField(1, 1) + VarintField(2, 2)), CorruptionError);
  EXPECT_THROW(Decode(VarintField(1, 1) + VarintField(2, uint64_t{1} << 32)), CorruptionError);
}

TEST(BundleHeader, Versions) {
  EXPECT_NO_THROW(Decode(WithVersion("")));
  EXPECT_NO_THROW(Decode(WithVersion(VarintField(1, 99)))) << "a newer producer";
  EXPECT_NO_THROW(Decode(WithVersion(VarintField(2, 1))));
  EXPECT_NO_THROW(Decode(WithVersion(VarintField(3, 2) + BytesField(3, "\x03\x04"))));
  EXPECT_THROW(Decode(WithVersion(VarintField(1, UINT64_MAX))), CorruptionError);
  EXPECT_THROW(Decode(WithVersion(VarintField(2, 2))), UnsupportedError);
  EXPECT_THROW(Decode(WithVersion(VarintField(3, 1))), UnsupportedError);
  EXPECT_THROW(Decode(WithVersion(BytesField(3, "\x03\x01"))), UnsupportedError);
  EXPECT_THROW(Decode(WithVersion(BytesField(3, "\x80"))), CorruptionError);
  EXPECT_THROW(Decode(WithVersion("\x08")), CorruptionError);
  EXPECT_NO_THROW(CheckVersion(ByteSpan(), "p.index")) << "an absent version is an old one";
}

TEST(BundleHeader, MistypedAndRepeatedFields) {
  EXPECT_NO_THROW(Decode(VarintField(1, 1) + VarintField(9, 1))) << "unknown fields are skipped";
  EXPECT_THROW(Decode(VarintField(1, 1) + VarintField(1, 1)), CorruptionError);
  EXPECT_THROW(Decode(BytesField(1, "\x01")), CorruptionError);
  EXPECT_THROW(Decode(VarintField(1, 1) + VarintField(3, 1)), CorruptionError);
  EXPECT_THROW(Decode(Fixed32Field(1, 1)), CorruptionError);
  EXPECT_THROW(Decode(VarintField(1, 1) + "\x0b"), CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
