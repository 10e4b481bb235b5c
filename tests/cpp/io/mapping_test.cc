// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/mapping.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

TEST(Mapping, OutlivesTheFile) {
  const TempDir dir;
  const std::string text(10'000, 'x');
  const std::string path = dir.Write("f", text);
  const std::shared_ptr<const Mapping> mapping = Mapping::OfFile(*File::Open(path));
  std::filesystem::remove(path);
  EXPECT_EQ(AsText(mapping->bytes()), text);
}

TEST(Mapping, EmptyFile) {
  const TempDir dir;
  const auto file = File::Open(dir.Write("f", ""));
  EXPECT_TRUE(Mapping::OfFile(*file)->bytes().empty());
  EXPECT_TRUE(Mapping::CopyOnWrite(*file, 0, 0)->bytes().empty());
}

TEST(Mapping, WritesStayPrivate) {
  const TempDir dir;
  std::string text(3 * 65536, 'x');
  const auto file = File::Open(dir.Write("f", text));
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, uint64_t{4095}, uint64_t{65537}}) {
    const uint64_t size = 70'000;
    const auto mine = Mapping::CopyOnWrite(*file, offset, size);
    const auto other = Mapping::CopyOnWrite(*file, offset, size);
    ASSERT_EQ(mine->bytes().size(), size);
    mine->writable_data()[0] = 'a';
    mine->writable_data()[size - 1] = 'z';
    EXPECT_EQ(mine->bytes()[0], 'a');
    EXPECT_EQ(mine->bytes()[size - 1], 'z');
    EXPECT_EQ(AsText(other->bytes()), text.substr(offset, size));
    EXPECT_EQ(AsText(Mapping::OfFile(*file)->bytes()), text);
  }
}

TEST(Mapping, PaddingIsWritableBeyondTheFile) {
  const TempDir dir;
  for (const uint64_t size : {uint64_t{10}, uint64_t{4096}, uint64_t{65536}, uint64_t{65537}}) {
    const std::string text(size, 'x');
    const auto file = File::Open(dir.Write("f", text));
    for (const uint64_t offset : {uint64_t{0}, uint64_t{7}}) {
      const uint64_t padding = 300'000;  // pages after the last page of the file
      const auto mapping = Mapping::CopyOnWrite(*file, offset, size - offset, padding);
      ASSERT_EQ(mapping->bytes().size(), size - offset + padding);
      EXPECT_EQ(AsText(mapping->bytes()).substr(0, size - offset), text.substr(offset));
      for (uint64_t at = 0; at < padding; at += 4096) {
        mapping->writable_data()[size - offset + at] = 'p';
      }
      EXPECT_EQ(mapping->bytes().back(), 0);
      EXPECT_EQ(AsText(Mapping::OfFile(*file)->bytes()), text);
    }
    EXPECT_THROW(Mapping::CopyOnWrite(*file, 0, size, UINT64_MAX), IOFailure);
  }
}

TEST(Mapping, CopyOnWriteStaysInsideTheFile) {
  const TempDir dir;
  const auto file = File::Open(dir.Write("f", "0123456789"));
  EXPECT_EQ(AsText(Mapping::CopyOnWrite(*file, 3, 7)->bytes()), "3456789");
  EXPECT_TRUE(Mapping::CopyOnWrite(*file, 10, 0)->bytes().empty());
  EXPECT_THROW(Mapping::CopyOnWrite(*file, 3, 8), CorruptionError);
  EXPECT_THROW(Mapping::CopyOnWrite(*file, 11, 0), CorruptionError);
  EXPECT_THROW(Mapping::CopyOnWrite(*file, 3, UINT64_MAX), CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
