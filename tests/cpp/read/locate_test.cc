// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/locate.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "random_boxes.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::CatalogOf;
using testing::ForEachElement;
using testing::Random;
using testing::RandomTiling;
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

TEST_F(TensorViewTest, ViewsAdjacentSlicesTogether) {
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
  const TensorView copy = CopyOnWriteSlice(*checkpoint_, columns, second);
  EXPECT_EQ(AsText(copy.bytes), "bd");
  copy.owner->writable_data()[0] = 'Z';
  EXPECT_EQ(AsText(copy.bytes), "Zd");
  EXPECT_EQ(AsText(ViewSlice(*checkpoint_, columns, second).bytes), "bd");
}

TEST_F(TensorViewTest, HasNoViewForSomeTensors) {
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

TEST_F(TensorViewTest, DoesNotAccessAShrunkFile) {
  Open(BundleBuilder().Add("t", DataType::kInt8, {10'000}, std::string(10'000, 'x')));
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 1), 9'999);
  EXPECT_THROW(View("t"), CorruptionError);
  EXPECT_THROW(CopyOnWriteTensor(*checkpoint_, Get("t")), CorruptionError);
  const auto reopened = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  EXPECT_THROW(ViewTensor(*reopened, reopened->catalog().tensors[0]), CorruptionError);
}

TEST_F(TensorViewTest, CopyOnWriteDoesNotChangeTheFile) {
  BundleBuilder builder;
  builder.Add("before", DataType::kInt8, {3}, "xyz").Add("t", DataType::kInt8, {4}, "abcd");
  Open(builder);
  const TensorView copy = CopyOnWriteTensor(*checkpoint_, Get("t"));
  ASSERT_TRUE(copy);
  EXPECT_EQ(AsText(copy.bytes), "abcd");
  copy.owner->writable_data()[0] = 'Z';
  EXPECT_EQ(AsText(copy.bytes), "Zbcd");
  EXPECT_EQ(AsText(View("t").bytes), "abcd");
  std::ifstream file(DataFilePath(dir_ / "p", 0, 1), std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "xyzabcd");
}

// The range of the whole tensor of a catalog of bytes; without a value if it is not one range.
std::optional<FileRange> Find(const Catalog& catalog) {
  const Tensor& tensor = catalog.tensors[0];
  const BoxLocation location = FindFileRange(catalog, tensor, WholeBox(catalog.Shape(tensor)));
  if (!location) return std::nullopt;
  return location.range;
}

const auto kNone = std::nullopt;

TEST(FindFileRange, AdjacentRows) {
  Catalog catalog = CatalogOf({4, 6}, {{{0, 1}, {0, 6}}, {{1, 3}, {0, 6}}});
  EXPECT_EQ(Find(catalog), (FileRange{0, 0, 24}));
  std::swap(catalog.slices[0], catalog.slices[1]);
  EXPECT_EQ(Find(catalog), (FileRange{0, 0, 24})) << "the order in the catalog does not matter";
  catalog.slices[0].file = 1;
  EXPECT_EQ(Find(catalog), kNone) << "not in one file";
  catalog.slices[0].file = 0;
  catalog.slices[0].offset += 1;
  EXPECT_EQ(Find(catalog), kNone) << "a gap";
}

TEST(FindFileRange, SlicesThatAreNotOneRange) {
  EXPECT_EQ(Find(CatalogOf({4, 6}, {{{0, 4}, {0, 3}}, {{0, 4}, {3, 3}}})), kNone);
  EXPECT_EQ(Find(CatalogOf({4, 6}, {{{2, 2}, {0, 6}}, {{0, 2}, {0, 6}}})), kNone) << "swapped rows";
  EXPECT_EQ(Find(CatalogOf({4, 6}, {{{0, 2}, {0, 6}}})), kNone) << "the rest is missing";
  EXPECT_EQ(Find(CatalogOf({4, 6}, {{{2, 2}, {0, 6}}})), kNone);
  EXPECT_EQ(Find(CatalogOf({1, 6}, {{{0, 1}, {0, 3}}, {{0, 1}, {3, 3}}})), (FileRange{0, 0, 6}))
      << "columns of one row are contiguous";
  EXPECT_EQ(Find(CatalogOf({}, {{}})), (FileRange{0, 0, 1}));
}

TEST(FindFileRange, IsTheTensorWheneverItIsFound) {
  Random random(23);
  int found = 0;
  for (int round = 0; round < 3000; ++round) {
    const std::vector<int64_t> shape = testing::RandomShape(&random, 3, 4);
    std::vector<Box> slices =
        RandomTiling(&random, WholeBox(shape), static_cast<int>(random() % 4));
    if (random() % 2 == 0) std::shuffle(slices.begin(), slices.end(), random);
    const Catalog catalog = CatalogOf(shape, slices);
    std::vector<uint64_t> stored;  // indices of the elements in the order of the file
    for (const Box& slice : slices) {
      ForEachElement(WholeBox(shape), slice, [&](uint64_t i) { stored.push_back(i); });
    }
    const bool is_tensor = std::is_sorted(stored.begin(), stored.end());
    const std::optional<FileRange> range = Find(catalog);
    ASSERT_EQ(range.has_value(), is_tensor);
    if (is_tensor) {
      ASSERT_EQ(*range, (FileRange{0, 0, stored.size()}));
    }
    found += is_tensor;
  }
  EXPECT_GT(found, 100);
}

TEST(FindFileRange, BoxesOfSlices) {
  const Catalog catalog = CatalogOf({4, 6}, {{{0, 2}, {0, 6}}, {{2, 2}, {0, 6}}});
  const Tensor& tensor = catalog.tensors[0];
  EXPECT_EQ(FindFileRange(catalog, tensor, {{1, 2}, {0, 6}}).range, (FileRange{0, 6, 12}));
  EXPECT_EQ(FindFileRange(catalog, tensor, {{3, 1}, {2, 3}}).range, (FileRange{0, 20, 3}));
  EXPECT_EQ(FindFileRange(catalog, tensor, {{0, 2}, {0, 3}}).reason, NoViewReason::kStrided);
  const Catalog swapped = CatalogOf({4}, {{{2, 2}}, {{0, 2}}});
  EXPECT_EQ(FindFileRange(swapped, swapped.tensors[0], {{1, 2}}).reason, NoViewReason::kScattered);
  EXPECT_EQ(FindFileRange(swapped, swapped.tensors[0], {{1, 1}}).range, (FileRange{0, 3, 1}));
}

TEST_F(TensorViewTest, SaysWhyThereIsNoView) {
  BundleBuilder builder(1, /*big_endian=*/true);
  builder.Add("wide", DataType::kInt16, {1}, "ab")
      .Add("s", DataType::kString, {0}, "\xd8\xea\x82\xa2");
  builder.AddSliced("apart", DataType::kInt8, {2, 2}, "abcd", {{{0, 2}, {0, 1}}, {{0, 2}, {1, 1}}});
  builder.AddSliced("hole", DataType::kInt8, {4}, "abcd", {{{0, 1}}, {{2, 2}}});
  Open(builder);
  const auto reason = [&](const char* name) { return View(name).reason; };
  EXPECT_EQ(reason("wide"), NoViewReason::kBigEndian);
  EXPECT_EQ(reason("s"), NoViewReason::kVariableSize);
  EXPECT_EQ(reason("apart"), NoViewReason::kScattered);
  EXPECT_EQ(CopyOnWriteTensor(*checkpoint_, Get("apart")).reason, NoViewReason::kScattered);
  EXPECT_EQ(reason("hole"), NoViewReason::kScattered);
  EXPECT_THROW(CopyOnWriteTensor(*checkpoint_, Get("hole")), CorruptionError);
  const StoredSlice& wide = checkpoint_->catalog().Slices(Get("wide"))[0];
  EXPECT_EQ(ViewSlice(*checkpoint_, Get("wide"), wide).reason, NoViewReason::kBigEndian);
  EXPECT_EQ(CopyOnWriteSlice(*checkpoint_, Get("wide"), wide).reason, NoViewReason::kBigEndian);
  EXPECT_EQ(LocateBox(*checkpoint_, Get("wide"), {{0, 1}}).reason, NoViewReason::kBigEndian);
  EXPECT_EQ(LocateBox(*checkpoint_, Get("apart"), {{1, 1}, {0, 1}}).range, (FileRange{0, 7, 1}));
  EXPECT_EQ(LocateBox(*checkpoint_, Get("apart"), {{0, 1}, {0, 2}}).reason,
            NoViewReason::kScattered);
  EXPECT_THROW(LocateBox(*checkpoint_, Get("hole"), {{0, 2}}), CorruptionError);
  Open(BundleBuilder().Add("t", DataType::kInt8, {2}, "ab"), IoMode::kPread);
  EXPECT_EQ(reason("t"), NoViewReason::kNotMapped);
  EXPECT_EQ(CopyOnWriteTensor(*checkpoint_, Get("t")).reason, NoViewReason::kNotMapped);
  const StoredSlice& slice = checkpoint_->catalog().Slices(Get("t"))[0];
  EXPECT_EQ(CopyOnWriteSlice(*checkpoint_, Get("t"), slice).reason, NoViewReason::kNotMapped);
}

TEST(NoViewReason, HasAText) {
  const std::pair<NoViewReason, const char*> texts[] = {
      {NoViewReason::kNone, ""},
      {NoViewReason::kVariableSize, "its elements have no fixed size"},
      {NoViewReason::kBigEndian, "it is stored big-endian"},
      {NoViewReason::kEncoded, "its stored form must be decoded"},
      {NoViewReason::kStrided, "its rows are parts of longer stored rows"},
      {NoViewReason::kScattered, "its stored slices are not adjacent"},
      {NoViewReason::kNotMapped, "the checkpoint was opened without memory mapping"},
  };
  for (const auto& [reason, text] : texts) EXPECT_STREQ(ToString(reason), text);
}

// The ranges of boxes and of rows, and what is counted in them.
class RangesTest : public TensorViewTest {
 protected:
  RangesTest() {
    BundleBuilder builder(2);
    builder.data() = "123";
    builder.AddSliced("t", DataType::kInt8, {6, 4}, "abcdefghijklmnopqrstuvwx",
                      {{{0, 2}, {0, 4}}, {{2, 2}, {0, 4}}, {{4, 2}, {0, 4}}});
    builder.AddSliced("hole", DataType::kInt8, {6, 4}, "abcdefghijklmnopqrstuvwx",
                      {{{0, 2}, {0, 4}}, {{4, 2}, {0, 4}}});
    builder.Add("s", DataType::kString, {0}, "\xd8\xea\x82\xa2", 1);
    builder.Put("u", Record{static_cast<DataType>(99), {2}, 0, 0, 8}.Message());
    builder.Add("none", DataType::kInt8, {3, 0}, "");
    Open(builder);
  }

  std::vector<FileRange> OfBox(const char* name, const Box& box) const {
    return RangesOfBox(*checkpoint_, Get(name), box);
  }
  std::vector<FileRange> OfRows(const char* name, const std::vector<int64_t>& rows) const {
    return RangesOfRows(*checkpoint_, Get(name), rows);
  }
};

// Slices 0 and 2 of "t" are adjacent in the first file, from byte 3 on.
TEST_F(RangesTest, OfBoxes) {
  using Ranges = std::vector<FileRange>;
  EXPECT_EQ(OfBox("t", {{0, 6}, {0, 4}}), (Ranges{{0, 3, 16}, {1, 0, 8}}));
  EXPECT_EQ(OfBox("t", {{1, 4}, {0, 4}}), (Ranges{{0, 7, 8}, {1, 0, 8}}));
  EXPECT_EQ(OfBox("t", {{0, 3}, {1, 2}}), (Ranges{{0, 4, 2}, {0, 8, 2}, {1, 1, 2}}));
  EXPECT_EQ(OfBox("t", {{0, 0}, {1, 2}}), Ranges{});
  EXPECT_THROW(OfBox("hole", {{1, 2}, {0, 4}}), CorruptionError);
  EXPECT_THROW(OfBox("u", {{0, 1}}), UnsupportedError);
}

TEST_F(RangesTest, OfRows) {
  using Ranges = std::vector<FileRange>;
  EXPECT_EQ(OfRows("t", {5, 0, 1, 0}), (Ranges{{0, 3, 8}, {0, 15, 4}}));
  EXPECT_EQ(OfRows("t", {1, 2, 3, 4}), (Ranges{{0, 7, 8}, {1, 0, 8}}));
  EXPECT_EQ(OfRows("t", {2}), (Ranges{{1, 0, 4}}));
  EXPECT_EQ(OfRows("t", {}), Ranges{});
  EXPECT_EQ(OfRows("none", {1}), Ranges{});
  EXPECT_EQ(OfRows("hole", {0, 1, 5}).size(), 2u);
  EXPECT_THROW(OfRows("hole", {0, 2}), CorruptionError);
  EXPECT_THROW(OfRows("u", {0}), UnsupportedError);
}

TEST_F(RangesTest, OfRowsOfAShortFile) {
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 1, 2), 4);
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  EXPECT_EQ(OfRows("t", {0}).size(), 1u);
  EXPECT_THROW(OfRows("t", {3}), CorruptionError);
}

TEST_F(RangesTest, Inspected) {
  const Tensor& tensor = Get("t");
  checkpoint_->SetVerified(checkpoint_->catalog().Slices(tensor)[1]);
  const std::vector<FileRange> ranges = OfBox("t", {{1, 4}, {0, 4}});
  const RangeStats stats = InspectRanges(*checkpoint_, tensor, ranges);
  EXPECT_EQ(stats.num_bytes, 16u);
  EXPECT_EQ(stats.num_slices, 3u);
  EXPECT_EQ(stats.num_whole, 1u);  // the second slice; the others in part
  EXPECT_EQ(stats.num_verified, 1u);
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  EXPECT_EQ(stats.num_touched, 2 * page);
  EXPECT_LE(stats.num_resident, stats.num_probed);
  EXPECT_FALSE(stats.prefers_direct);
  const RangeStats first = InspectRanges(*checkpoint_, tensor, OfBox("t", {{0, 1}, {0, 2}}));
  EXPECT_EQ(first.num_slices, 1u);
  EXPECT_EQ(first.num_whole, 0u);
  const RangeStats none = InspectRanges(*checkpoint_, tensor, std::vector<FileRange>{{0, 0, 0}});
  EXPECT_EQ(none.num_slices + none.num_bytes + none.num_touched, 0u);
}

TEST_F(TensorViewTest, CountsThePagesThatRangesTouch) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  Open(BundleBuilder().Add("t", DataType::kUint8, {static_cast<int64_t>(4 * page)},
                           std::string(4 * page, 'x')));
  const auto touched = [&](uint64_t offset, uint64_t size) {
    const std::vector<FileRange> ranges = {{0, offset, size}};
    return InspectRanges(*checkpoint_, Get("t"), ranges).num_touched / page;
  };
  EXPECT_EQ(touched(0, 1), 1U);
  EXPECT_EQ(touched(0, page), 1U);
  EXPECT_EQ(touched(0, page + 1), 2U);
  EXPECT_EQ(touched(page - 1, 2), 2U);
  EXPECT_EQ(touched(page + 5, page), 2U);
  EXPECT_EQ(touched(3 * page, page), 1U);
}

}  // namespace
}  // namespace tensorbundle
