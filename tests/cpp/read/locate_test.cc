// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/locate.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::Record;
using testing::TempDir;

class TensorViewTest : public ::testing::Test {
 protected:
  void Open(const BundleBuilder& builder, IoMode mode = IoMode::kAuto) {
    builder.Write(dir_ / "p");
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", mode);
  }
  const Tensor& Get(const std::string& name) const {
    return checkpoint_->catalog().tensors.at(checkpoint_->catalog().Find(name));
  }
  TensorView View(const std::string& name) const { return ViewTensor(*checkpoint_, Get(name)); }

  const TempDir dir_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_F(TensorViewTest, OutlivesTheCheckpointAndTheFile) {
  Open(BundleBuilder().Add("t", DataType::kInt16, {2}, "abcd"));
  const TensorView view = View("t");
  checkpoint_.reset();
  std::filesystem::remove(DataFilePath(dir_ / "p", 0, 1));
  ASSERT_TRUE(view);
  EXPECT_EQ(AsText(view.bytes), "abcd");
}

TEST_F(TensorViewTest, SlicesInOneRowAreOneView) {
  BundleBuilder builder;
  builder.Add("before", DataType::kInt8, {3}, "xyz");
  builder.AddSliced("rows", DataType::kInt8, {2, 2}, "abcd", {{{0, 1}, {0, 2}}, {{1, 1}, {0, 2}}});
  builder.AddSliced("columns", DataType::kInt8, {2, 2}, "abcd",
                    {{{0, 2}, {0, 1}}, {{0, 2}, {1, 1}}});
  Open(builder);
  EXPECT_EQ(AsText(View("rows").bytes), "abcd");
  EXPECT_FALSE(View("columns"));
  const Tensor& columns = Get("columns");
  const StoredSlice& second = checkpoint_->catalog().Slices(columns)[1];
  EXPECT_EQ(AsText(ViewSlice(*checkpoint_, columns, second).bytes), "bd");
}

TEST_F(TensorViewTest, WhyThereIsNone) {
  BundleBuilder builder(1, /*big_endian=*/true);
  builder.Add("wide", DataType::kInt16, {1}, "ab").Add("narrow", DataType::kInt8, {2}, "ab");
  builder.Add("s", DataType::kString, {0}, "\xd8\xea\x82\xa2");
  builder.Put("u", Record{static_cast<DataType>(99), {2}, 0, 0, 2}.Message());
  Open(builder);
  EXPECT_FALSE(View("wide"));
  EXPECT_TRUE(View("narrow"));
  EXPECT_FALSE(View("s"));
  EXPECT_THROW(View("u"), UnsupportedError);
  for (const char* name : {"wide", "s"}) EXPECT_FALSE(CopyOnWriteTensor(*checkpoint_, Get(name)));
  for (const IoMode mode : {IoMode::kPread, IoMode::kDirect}) {
    Open(builder, mode);
    try {
      checkpoint_->files().Get(0);
    } catch (const UnsupportedError&) {
      continue;  // no direct I/O here
    }
    EXPECT_FALSE(View("narrow")) << "never maps";
    EXPECT_FALSE(CopyOnWriteTensor(*checkpoint_, Get("narrow"))) << "never maps";
  }
}

TEST_F(TensorViewTest, EmptyTensors) {
  Open(BundleBuilder().Add("none", DataType::kFloat, {0, 3}, ""));
  ASSERT_TRUE(View("none"));
  EXPECT_TRUE(View("none").bytes.empty());
  EXPECT_TRUE(CopyOnWriteTensor(*checkpoint_, Get("none")));
}

TEST_F(TensorViewTest, AShrunkFileIsNotTouched) {
  Open(BundleBuilder().Add("t", DataType::kInt8, {10'000}, std::string(10'000, 'x')));
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 1), 9'999);
  EXPECT_THROW(View("t"), CorruptionError);
  EXPECT_THROW(CopyOnWriteTensor(*checkpoint_, Get("t")), CorruptionError);
  const auto reopened = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  EXPECT_THROW(ViewTensor(*reopened, reopened->catalog().tensors[0]), CorruptionError);
}

TEST_F(TensorViewTest, CopyOnWriteLeavesTheFileAlone) {
  BundleBuilder builder;
  builder.Add("before", DataType::kInt8, {3}, "xyz").Add("t", DataType::kInt8, {4}, "abcd");
  Open(builder);
  const TensorView mine = CopyOnWriteTensor(*checkpoint_, Get("t"));
  ASSERT_TRUE(mine);
  EXPECT_EQ(AsText(mine.bytes), "abcd");
  mine.owner->writable_data()[0] = 'Z';
  EXPECT_EQ(AsText(mine.bytes), "Zbcd");
  EXPECT_EQ(AsText(View("t").bytes), "abcd");
  std::ifstream file(DataFilePath(dir_ / "p", 0, 1), std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "xyzabcd");
}

}  // namespace
}  // namespace tensorbundle
