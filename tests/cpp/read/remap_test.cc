// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/remap.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"

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

}  // namespace
}  // namespace tensorbundle
