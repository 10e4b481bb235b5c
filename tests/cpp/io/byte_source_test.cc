// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/io/byte_source.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::TempDir;

const std::string kText = "0123456789";

TEST(ByteSource, BothReadTheSame) {
  const TempDir dir;
  const auto file = File::Open(dir.Write("f", kText));
  const MemorySource memory(*file);
  const FileSource direct(file);
  for (const ByteSource* source :
       {static_cast<const ByteSource*>(&memory), static_cast<const ByteSource*>(&direct)}) {
    EXPECT_EQ(source->path(), dir / "f");
    EXPECT_EQ(source->size(), kText.size());
    for (size_t offset = 0; offset <= kText.size(); ++offset) {
      for (size_t size = 0; offset + size <= kText.size(); ++size) {
        std::vector<uint8_t> scratch(3, 0xee);
        EXPECT_EQ(AsText(source->Read(offset, size, &scratch)), kText.substr(offset, size));
      }
    }
  }
}

TEST(ByteSource, MemorySourceIgnoresLaterChanges) {
  const TempDir dir;
  const auto file = File::Open(dir.Write("f", kText));
  const MemorySource memory(*file);
  const FileSource direct(file);
  std::filesystem::resize_file(dir / "f", 5);
  std::vector<uint8_t> scratch;
  EXPECT_EQ(AsText(memory.Read(0, 10, &scratch)), kText);
  EXPECT_THROW(direct.Read(0, 10, &scratch), CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
