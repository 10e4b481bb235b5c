// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "random_boxes.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::CutOut;
using testing::Random;
using testing::RandomTiling;
using testing::TempDir;

class VerifyChecksumsTest : public ::testing::Test {
 protected:
  // Opens anew, as another process would.
  std::shared_ptr<const Checkpoint> Open() const {
    return Checkpoint::OpenBundle(dir_ / "p", IoMode::kPread);
  }

  static const Tensor& TensorOf(const Checkpoint& checkpoint) {
    return checkpoint.catalog().tensors.at(checkpoint.catalog().Find("t"));
  }

  std::vector<PartialChecksum> Read(const Box& box, std::string* out) const {
    const auto checkpoint = Open();
    const Tensor& tensor = TensorOf(*checkpoint);
    std::vector<uint8_t> bytes(Volume(box) * RequireKnownType(tensor).item_size);
    std::vector<PartialChecksum> parts =
        ReadBoxWithChecksums(*checkpoint, tensor, box, bytes, {3, false});
    out->assign(bytes.begin(), bytes.end());
    return parts;
  }

  void Verify(const std::vector<PartialChecksum>& parts) const {
    const auto checkpoint = Open();
    VerifyChecksums(*checkpoint, TensorOf(*checkpoint), parts, 2);
  }

  void Flip(uint64_t offset) const {
    std::fstream file(DataFilePath(dir_ / "p", 0, 1), std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 8);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  const TempDir dir_;
  Random random_{7};
};

TEST_F(VerifyChecksumsTest, AnyReadsOfAnySlices) {
  for (int round = 0; round < 60; ++round) {
    const std::vector<int64_t> shape = testing::RandomShape(&random_, 4, 9);
    const Box whole = WholeBox(shape);
    std::string bytes(Volume(whole) * 4, '\0');
    for (char& c : bytes) c = static_cast<char>(random_());
    BundleBuilder builder(1, /*big_endian=*/false);
    builder.AddSliced("t", DataType::kFloat, shape, bytes,
                      RandomTiling(&random_, whole, static_cast<int>(random_() % 8)));
    builder.Write(dir_ / "p");
    const std::vector<Box> boxes = RandomTiling(&random_, whole, static_cast<int>(random_() % 6));
    const auto read_all = [&] {
      std::vector<PartialChecksum> parts;
      for (const Box& box : boxes) {
        std::string out;
        for (const PartialChecksum& part : Read(box, &out)) parts.push_back(part);
        EXPECT_EQ(out.size(), Volume(box) * 4);
      }
      std::shuffle(parts.begin(), parts.end(), random_);
      return parts;
    };
    std::string out;
    Read(boxes[0], &out);
    ASSERT_EQ(out, CutOut(bytes, shape, boxes[0], 4));
    const std::vector<PartialChecksum> good = read_all();
    Verify(good);
    const uint64_t offset = random_() % bytes.size();
    Flip(offset);
    EXPECT_THROW(Verify(read_all()), CorruptionError) << ShapeToString(shape) << offset;
    EXPECT_THROW(Verify(UnreadSlices(TensorOf(*Open()))), CorruptionError);
    Flip(offset);
    // Each part is compared, also beside a good one of the same bytes.
    std::vector<PartialChecksum> bad = good;
    const auto with_bytes = std::find_if(bad.begin(), bad.end(),
                                         [](const PartialChecksum& part) { return part.size > 0; });
    if (with_bytes == bad.end()) continue;
    PartialChecksum wrong = *with_bytes;
    wrong.crc ^= 1;
    bad.push_back(wrong);
    EXPECT_THROW(Verify(bad), CorruptionError);
  }
}

TEST_F(VerifyChecksumsTest, OneOfEachSliceInTheBox) {
  const std::string bytes(64, 'x');
  BundleBuilder builder;
  builder.AddSliced("t", DataType::kFloat, {4, 4}, bytes,
                    {Box{{0, 2}, {0, 4}}, Box{{2, 2}, {0, 4}}});
  builder.Write(dir_ / "p");
  std::string out;
  const auto rows = Read({{1, 2}, {0, 4}}, &out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ((std::vector<uint64_t>{rows[0].slice, rows[0].offset, rows[0].size}),
            (std::vector<uint64_t>{0, 16, 16}));
  EXPECT_EQ((std::vector<uint64_t>{rows[1].slice, rows[1].offset, rows[1].size}),
            (std::vector<uint64_t>{1, 0, 16}));
  const auto column = Read({{0, 2}, {1, 1}}, &out);
  ASSERT_EQ(column.size(), 1u);
  EXPECT_EQ(column[0], (PartialChecksum{.slice = 0}));
  const auto checkpoint = Open();
  EXPECT_EQ(UnreadSlices(*checkpoint, TensorOf(*checkpoint), {{0, 1}, {0, 1}}),
            std::vector<PartialChecksum>{PartialChecksum{}});
  EXPECT_EQ(UnreadSlices(TensorOf(*checkpoint)).size(), 2u);
}

TEST_F(VerifyChecksumsTest, RangesOutsideTheSlice) {
  BundleBuilder builder;
  builder.Add("t", DataType::kFloat, {4}, std::string(16, 'x'));
  builder.Write(dir_ / "p");
  Verify({});
  EXPECT_THROW(Verify({{.slice = 1}}), std::invalid_argument);
  EXPECT_THROW(Verify({{.slice = 0, .offset = 8, .size = 9}}), CorruptionError);
  EXPECT_THROW(Verify({{.slice = 0, .offset = UINT64_MAX, .size = 2}}), CorruptionError);
}

TEST_F(VerifyChecksumsTest, StringsAreReadAgain) {
  BundleBuilder builder;
  const std::string payload = std::string(1, '\0') + "....";  // no such checksum
  builder.Add("t", DataType::kString, {1}, payload);
  builder.Write(dir_ / "p");
  EXPECT_THROW(Verify(UnreadSlices(TensorOf(*Open()))), CorruptionError);
}

TEST_F(VerifyChecksumsTest, OnlyTheFilesOfOneTensor) {
  BundleBuilder builder(2);
  builder.Add("t", DataType::kFloat, {1}, "abcd", 0);
  builder.Add("u", DataType::kFloat, {1}, "efgh", 1);
  builder.Write(dir_ / "p");
  auto index = std::make_shared<const BundleIndex>(ReadBundleIndex(dir_ / "p"));
  const Tensor& tensor = index->catalog.tensors.at(index->catalog.Find("u"));
  const auto checkpoint = Checkpoint::OpenTensor(index, tensor, IoMode::kAuto);
  index.reset();  // the checkpoint keeps it
  std::vector<uint8_t> out(4);
  ReadBox(*checkpoint, tensor, {{0, 1}}, out, {});
  EXPECT_EQ(AsText(out), "efgh");
  EXPECT_THROW(checkpoint->files().Get(0), std::out_of_range);
}

}  // namespace
}  // namespace tensorbundle
