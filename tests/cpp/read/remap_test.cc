// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/remap.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::TempDir;

// A table of 4 by 2 floats, 0 to 7.
class RemapTest : public ::testing::Test {
 protected:
  RemapTest() {
    std::vector<float> values(8);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    BundleBuilder builder;
    builder.Add("t", DataType::kFloat, {4, 2},
                std::string_view(reinterpret_cast<const char*>(values.data()), 32));
    builder.Write(dir_ / "p");
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  }

  void Remap(const Remapping& remapping, const CellFillValues& fill, std::vector<float>* out,
             uint64_t stride) const {
    const Tensor& tensor = checkpoint_->catalog().tensors[0];
    RemapTable(*checkpoint_, tensor, LayOutRows(*checkpoint_, tensor), remapping, fill,
               {reinterpret_cast<uint8_t*>(out->data()), out->size() * sizeof(float)}, stride, 2);
  }

  static ByteSpan BytesOf(const std::vector<float>& values) {
    return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
  }

  const TempDir dir_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_F(RemapTest, TakesMissingCellsFromTheirPlaces) {
  const std::vector<int64_t> rows = {3, -1, 0};
  const Remapping remapping{.rows = rows, .num_rows = 3};
  const std::vector<float> places = {90, 91, 92, 93, 94, 95};
  std::vector<float> out(6, -1);
  Remap(remapping, {CellFillValues::Kind::kPlaces, BytesOf(places)}, &out, 8);
  EXPECT_EQ(out, (std::vector<float>{6, 7, 92, 93, 0, 1}));
  // In place: missing cells keep their values.
  out = places;
  Remap(remapping, {CellFillValues::Kind::kPlaces, BytesOf(out)}, &out, 8);
  EXPECT_EQ(out, (std::vector<float>{6, 7, 92, 93, 0, 1}));
}

TEST_F(RemapTest, TakesMissingColumnsFromTheirPlacesWithAFirstRow) {
  const std::vector<int64_t> columns = {-1, 1};
  const Remapping remapping{
      .rows = std::nullopt, .num_rows = 2, .columns = columns, .first_row = 1};
  std::vector<float> out = {90, 91, 92, 93, 94, 95};  // with a column outside the new table
  Remap(remapping, {CellFillValues::Kind::kPlaces, BytesOf(out)}, &out, 12);
  EXPECT_EQ(out, (std::vector<float>{90, 3, 92, 93, 5, 95}));
}

TEST_F(RemapTest, PlacesMustHaveTheSizeOfTheDestination) {
  const std::vector<int64_t> rows = {-1};
  std::vector<float> out(2);
  const std::vector<float> places(3);
  EXPECT_THROW(Remap({.rows = rows, .num_rows = 1},
                     {CellFillValues::Kind::kPlaces, BytesOf(places)}, &out, 8),
               std::invalid_argument);
}

TEST_F(RemapTest, FillsATableWithoutColumns) {
  BundleBuilder builder;
  builder.Add("t", DataType::kFloat, {4, 0}, "");
  builder.Write(dir_ / "q");
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "q", IoMode::kAuto);
  const Tensor& tensor = checkpoint->catalog().tensors[0];
  const std::vector<int64_t> rows = {3, -1};
  const std::vector<int64_t> columns = {-1};
  const std::vector<float> cells = {8, 9};
  std::vector<float> out(2);
  RemapTable(*checkpoint, tensor, LayOutRows(*checkpoint, tensor),
             {.rows = rows, .num_rows = 2, .columns = columns},
             {CellFillValues::Kind::kCells, BytesOf(cells)},
             {reinterpret_cast<uint8_t*>(out.data()), 8}, 4, 2);
  EXPECT_EQ(out, cells);
}

// New memory is filled page by page, by tasks whose rows do not end at pages.
TEST_F(RemapTest, FillsNewMemoryAsOldMemory) {
  constexpr uint64_t kTableRows = 1000;
  constexpr uint64_t kRows = 50'000;  // several tasks
  for (const uint64_t width : {uint64_t{5}, uint64_t{16}, uint64_t{33}, uint64_t{7000}}) {
    const uint64_t num_rows = width > 100 ? 60 : kRows;
    std::vector<float> values(kTableRows * width);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    BundleBuilder builder;
    builder.Add("t", DataType::kFloat, {int64_t{kTableRows}, static_cast<int64_t>(width)},
                std::string_view(reinterpret_cast<const char*>(values.data()), values.size() * 4));
    const std::string prefix = dir_ / ("w" + std::to_string(width));
    builder.Write(prefix);
    const auto checkpoint = Checkpoint::OpenBundle(prefix, IoMode::kAuto);
    const Tensor& tensor = checkpoint->catalog().tensors[0];
    const RowLayout layout = LayOutRows(*checkpoint, tensor);

    std::vector<int64_t> rows(num_rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] = i % 5 == 3 ? -1 : static_cast<int64_t>(i * 7919 % kTableRows);
    }
    std::vector<int64_t> columns(width);
    for (size_t i = 0; i < width; ++i) columns[i] = i % 4 == 2 ? -1 : static_cast<int64_t>(i);
    for (const bool permutes : {false, true}) {
      Remapping remapping{.rows = rows, .num_rows = num_rows};
      if (permutes) remapping.columns = columns;
      std::vector<float> cells(CountMissingCells(*checkpoint, tensor, remapping, 1));
      for (size_t i = 0; i < cells.size(); ++i) cells[i] = -static_cast<float>(i);
      const CellFillValues fill{CellFillValues::Kind::kCells, BytesOf(cells)};
      const uint64_t size = num_rows * width * sizeof(float);
      std::vector<uint8_t> expected(size);
      RemapTable(*checkpoint, tensor, layout, remapping, fill, expected, width * 4, 2);

      constexpr uint64_t kOffset = 64;  // as TensorFlow's memory, which begins inside a page
      const uint64_t mapped = size + 2 * kOffset;
      void* const memory =
          ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      ASSERT_NE(memory, MAP_FAILED);
      auto* const out = static_cast<uint8_t*>(memory) + kOffset;
      RemapTable(*checkpoint, tensor, layout, remapping, fill, {out, size}, width * 4, 2,
                 /*fresh=*/true);
      EXPECT_EQ(std::memcmp(out, expected.data(), size), 0) << width << ' ' << permutes;
      EXPECT_EQ(out[-1], 0);
      EXPECT_EQ(out[size], 0);
      ::munmap(memory, mapped);
    }
  }
}

TEST_F(RemapTest, RejectsPlainRowsBeyondTheTable) {
  std::vector<float> out(8);
  const std::vector<float> zero(1);
  const CellFillValues fill{CellFillValues::Kind::kElement, BytesOf(zero)};
  Remap({.rows = std::nullopt, .num_rows = 1, .first_row = 3}, fill, &out, 8);
  EXPECT_EQ(out[1], 7);
  EXPECT_THROW(Remap({.rows = std::nullopt, .num_rows = 2, .first_row = 3}, fill, &out, 8),
               std::out_of_range);
  EXPECT_THROW(Remap({.rows = std::nullopt, .num_rows = 2, .first_row = UINT64_MAX}, fill, &out, 8),
               std::out_of_range);
}

TEST_F(RemapTest, RejectsWrongNumbersAndSizes) {
  const std::vector<int64_t> rows = {0, 1};
  const std::vector<float> cell(1);
  const CellFillValues fill{CellFillValues::Kind::kElement, BytesOf(cell)};
  std::vector<float> out(4);
  for (const int64_t bad : {int64_t{-2}, int64_t{4}}) {
    const std::vector<int64_t> ids = {0, bad};
    EXPECT_THROW(Remap({.rows = ids, .num_rows = 2}, fill, &out, 8), std::out_of_range);
  }
  for (const int64_t bad : {int64_t{-2}, int64_t{2}}) {
    const std::vector<int64_t> columns = {bad};
    EXPECT_THROW(Remap({.rows = rows, .num_rows = 2, .columns = columns}, fill, &out, 8),
                 std::out_of_range);
  }
  EXPECT_THROW(Remap({.rows = rows, .num_rows = 2}, fill, &out, 12), std::invalid_argument)
      << "the second row ends after the destination";
  EXPECT_THROW(
      Remap({.rows = rows, .num_rows = 2}, {CellFillValues::Kind::kCells, BytesOf(cell)}, &out, 8),
      std::invalid_argument)
      << "no cell is missing";
  Remap({.rows = std::vector<int64_t>(), .num_rows = 0}, fill, &out, 8);
  Remap({.rows = rows, .num_rows = 2, .columns = std::vector<int64_t>()}, fill, &out, 0);
  EXPECT_EQ(out, std::vector<float>(4));
}

TEST_F(RemapTest, RejectsColumnsOfAVector) {
  BundleBuilder builder;
  builder.Add("t", DataType::kFloat, {4}, std::string(16, 'x'));
  builder.Write(dir_ / "v");
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "v", IoMode::kAuto);
  const std::vector<int64_t> columns = {0};
  EXPECT_THROW(CountMissingCells(*checkpoint, checkpoint->catalog().tensors[0],
                                 {.num_rows = 4, .columns = columns}, 1),
               std::invalid_argument);
}

TEST_F(RemapTest, CountsMissingCells) {
  const Tensor& tensor = checkpoint_->catalog().tensors[0];
  const std::vector<int64_t> rows = {3, -1, 0, -1};
  const std::vector<int64_t> columns = {-1, 1, -1};
  const auto count = [&](const Remapping& remapping) {
    return CountMissingCells(*checkpoint_, tensor, remapping, 2);
  };
  EXPECT_EQ(count({.rows = rows, .num_rows = 4}), 2u * 2);
  EXPECT_EQ(count({.rows = rows, .num_rows = 4, .columns = columns}), 2u * 3 + 2u * 2);
  EXPECT_EQ(count({.num_rows = 3, .columns = columns}), 3u * 2);
  EXPECT_EQ(count({.num_rows = 4}), 0u);
}

// Elements of axis 1 that are vectors, in an order of their own, with a fill element that does not
// divide the size of the pattern.
TEST_F(RemapTest, MovesColumnsOfThreeAxes) {
  std::string bytes;
  for (int i = 0; i < 2 * 4 * 3; ++i) bytes += static_cast<char>('a' + i);
  BundleBuilder builder;
  builder.Add("t", DataType::kInt8, {2, 4, 3}, bytes);
  builder.Write(dir_ / "three");
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "three", IoMode::kAuto);
  const Tensor& tensor = checkpoint->catalog().tensors[0];
  const std::vector<int64_t> rows = {1, -1};
  const std::vector<int64_t> columns = {3, -1, -1, 0, 1, -1, 2};
  std::string out(2 * 21, ' ');
  RemapTable(*checkpoint, tensor, LayOutRows(*checkpoint, tensor),
             {.rows = rows, .num_rows = 2, .columns = columns},
             {CellFillValues::Kind::kElement, AsBytes("-")},
             {reinterpret_cast<uint8_t*>(out.data()), out.size()}, 21, 1);
  EXPECT_EQ(out, "vwx------mnopqr---stu" + std::string(21, '-'));
}

// Rows of several windows, longer than the pattern of an element, written past the caches.
TEST_F(RemapTest, LongRows) {
  constexpr uint64_t kWidth = 70'000;
  std::string bytes(4 * kWidth, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 24);
  BundleBuilder builder;
  builder.Add("t", DataType::kInt8, {4, kWidth}, bytes);
  builder.Write(dir_ / "long");
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "long", IoMode::kAuto);
  const Tensor& tensor = checkpoint->catalog().tensors[0];
  const RowLayout layout = LayOutRows(*checkpoint, tensor);
  std::vector<int64_t> rows(130);
  std::string expected;
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = static_cast<int64_t>(i % 5) - 1;
    expected += rows[i] < 0 ? std::string(kWidth, '-')
                            : bytes.substr(static_cast<size_t>(rows[i]) * kWidth, kWidth);
  }
  std::string out(expected.size(), ' ');
  const auto remap = [&](std::optional<std::span<const int64_t>> columns) {
    RemapTable(*checkpoint, tensor, layout,
               {.rows = rows, .num_rows = rows.size(), .columns = columns},
               {CellFillValues::Kind::kElement, AsBytes("-")},
               {reinterpret_cast<uint8_t*>(out.data()), out.size()}, kWidth, 2);
  };
  remap(std::nullopt);
  EXPECT_TRUE(out == expected);
  std::vector<int64_t> columns(kWidth);
  for (size_t i = 0; i < kWidth; ++i) columns[i] = static_cast<int64_t>(i);
  out.assign(out.size(), ' ');
  remap(columns);
  EXPECT_TRUE(out == expected);
}

// New memory that is not filled page by page: in place, and with gaps between the rows.
TEST_F(RemapTest, FillsNewMemoryInPlace) {
  const Tensor& tensor = checkpoint_->catalog().tensors[0];
  const RowLayout layout = LayOutRows(*checkpoint_, tensor);
  const std::vector<int64_t> rows = {3, -1};
  std::vector<float> out = {90, 91, 92, 93, 94, 95};
  const MutableByteSpan bytes(reinterpret_cast<uint8_t*>(out.data()), 24);
  RemapTable(*checkpoint_, tensor, layout, {.rows = rows, .num_rows = 2},
             {CellFillValues::Kind::kPlaces, bytes}, bytes, 8, 1, /*fresh=*/true);
  EXPECT_EQ(out, (std::vector<float>{6, 7, 92, 93, 94, 95}));
  const std::vector<float> cell = {-1};
  RemapTable(*checkpoint_, tensor, layout, {.rows = rows, .num_rows = 2},
             {CellFillValues::Kind::kElement, BytesOf(cell)}, bytes, 12, 1, /*fresh=*/true);
  EXPECT_EQ(out, (std::vector<float>{6, 7, 92, -1, -1, 95}));
}

// Rows that are stored nowhere, and rows that are outside the requested ones.
TEST_F(RemapTest, RequiresTheRowsThatItTakes) {
  BundleBuilder builder;
  builder.AddSliced("t", DataType::kInt8, {4, 2}, "abcdefgh", {{{0, 2}, {0, 2}}, {{3, 1}, {0, 2}}});
  builder.Write(dir_ / "hole");
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "hole", IoMode::kAuto);
  const Tensor& tensor = checkpoint->catalog().tensors[0];
  const RowLayout layout = LayOutRows(*checkpoint, tensor);
  const auto require = [&](const Remapping& remapping) {
    RequireRemappable(*checkpoint, tensor, layout, remapping, 1);
  };
  const std::vector<int64_t> good = {3, -1, 0};
  const std::vector<int64_t> bad = {3, 2};
  EXPECT_NO_THROW(require({.rows = good, .num_rows = 3}));
  EXPECT_THROW(require({.rows = bad, .num_rows = 2}), CorruptionError);
  EXPECT_NO_THROW(require({.num_rows = 2}));
  EXPECT_THROW(require({.num_rows = 3}), CorruptionError);
  EXPECT_NO_THROW(require({.num_rows = 1, .first_row = 3}));
  std::string out(6, ' ');
  RemapTable(*checkpoint, tensor, layout, {.rows = good, .num_rows = 3},
             {CellFillValues::Kind::kElement, AsBytes("-")},
             {reinterpret_cast<uint8_t*>(out.data()), out.size()}, 2, 1);
  EXPECT_EQ(out, "gh--ab");
}

}  // namespace
}  // namespace tensorbundle
