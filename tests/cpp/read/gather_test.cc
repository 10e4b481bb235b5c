// SPDX-License-Identifier: Apache-2.0
// Row numbers and fill values that change while they are used, because they are in the destination,
// which the rows overwrite. The result does not matter; nothing outside the table is accessed.
#include "tensorbundle/read/gather.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/read/remap.h"

namespace tensorbundle {
namespace {

constexpr int64_t kRows = 4;
constexpr int64_t kColumns = 4;
constexpr uint64_t kRowSize = kColumns * sizeof(float);
constexpr size_t kCount = 50'000;  // several tasks, more than one batch of look-ups

class ChangingMemoryTest : public ::testing::Test {
 protected:
  ChangingMemoryTest() {
    testing::BundleBuilder builder(1);
    // As row numbers, these bytes are far outside the table.
    builder.Add("t", DataType::kFloat, {kRows, kColumns}, std::string(kRows * kRowSize, '\x55'));
    builder.Write(dir_ / "p");
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  }

  const Tensor& tensor() const { return checkpoint_->catalog().tensors.at(0); }

  // Returns row numbers at the beginning of the destination.
  template <typename Id>
  std::span<const Id> IdsInDestination() {
    memory_.assign(kCount * kRowSize, 0);
    auto* ids = reinterpret_cast<Id*>(memory_.data());
    for (size_t i = 0; i < kCount; ++i) ids[i] = static_cast<Id>(i % kRows);
    return {ids, kCount};
  }

  const testing::TempDir dir_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::vector<uint8_t> memory_;
};

template <typename Id>
class ChangingIdsTest : public ChangingMemoryTest {};
using IdTypes = ::testing::Types<int32_t, int64_t, uint32_t, uint64_t>;
TYPED_TEST_SUITE(ChangingIdsTest, IdTypes);

TYPED_TEST(ChangingIdsTest, Gather) {
  const RowLayout layout = LayOutRows(*this->checkpoint_, this->tensor());
  for (const int threads : {1, 3}) {
    const std::span<const TypeParam> ids = this->template IdsInDestination<TypeParam>();
    try {
      GatherRows(*this->checkpoint_, this->tensor(), layout, ids, {}, this->memory_, threads);
    } catch (const std::out_of_range&) {
    }
  }
}

TYPED_TEST(ChangingIdsTest, GatherWithAFillValuePerMissingRow) {
  const RowLayout layout = LayOutRows(*this->checkpoint_, this->tensor());
  const std::span<const TypeParam> ids = this->template IdsInDestination<TypeParam>();
  const RowFillValues fill_values{RowFillValues::Kind::kRows,
                                  {}};  // no row is missing until the rows are written
  EXPECT_THROW(
      GatherRows(*this->checkpoint_, this->tensor(), layout, ids, fill_values, this->memory_, 1),
      std::out_of_range);
}

TEST_F(ChangingMemoryTest, Remap) {
  const RowLayout layout = LayOutRows(*checkpoint_, tensor());
  const float zero = 0;
  const CellFillValues fill_values{CellFillValues::Kind::kElement,
                                   {reinterpret_cast<const uint8_t*>(&zero), sizeof(zero)}};
  for (const int threads : {1, 3}) {
    const Remapping remapping{IdsInDestination<int64_t>(), kCount};
    EXPECT_THROW(RemapTable(*checkpoint_, tensor(), layout, remapping, fill_values, memory_,
                            kRowSize, threads),
                 std::out_of_range);
  }
}

TEST_F(ChangingMemoryTest, RemapOfRowsAndColumns) {
  const RowLayout layout = LayOutRows(*checkpoint_, tensor());
  const CellFillValues fill_values{CellFillValues::Kind::kCells,
                                   {}};  // no row is missing until the rows are written
  const std::vector<int64_t> columns{3, 2, 1, 0};
  const Remapping remapping{IdsInDestination<int64_t>(), kCount, columns};
  EXPECT_THROW(
      RemapTable(*checkpoint_, tensor(), layout, remapping, fill_values, memory_, kRowSize, 1),
      std::out_of_range);
}

// All columns are in the destination: the first row overwrites them.
TEST_F(ChangingMemoryTest, RemapOfColumnsInTheDestination) {
  const RowLayout layout = LayOutRows(*checkpoint_, tensor());
  memory_.assign(kRows * kRowSize, 0);
  auto* columns = reinterpret_cast<int64_t*>(memory_.data());
  for (int64_t i = 0; i < kColumns; ++i) columns[i] = i;
  const float zero = 0;
  const CellFillValues fill_values{CellFillValues::Kind::kElement,
                                   {reinterpret_cast<const uint8_t*>(&zero), sizeof(zero)}};
  const Remapping remapping{.num_rows = kRows,
                            .columns = std::span<const int64_t>(columns, kColumns)};
  RemapTable(*checkpoint_, tensor(), layout, remapping, fill_values, memory_, kRowSize, 1);
  EXPECT_EQ(memory_, std::vector<uint8_t>(kRows * kRowSize, 0x55));  // columns are copied first
}

// ---- Rows of many tasks.

class ManyRowsTest : public ::testing::Test {
 protected:
  static constexpr int64_t kTableRows = 1000;

  ManyRowsTest() {
    std::string bytes(kTableRows * sizeof(int32_t), '\0');
    for (int32_t row = 0; row < kTableRows; ++row) {
      std::memcpy(bytes.data() + row * sizeof(row), &row, sizeof(row));
    }
    testing::BundleBuilder builder(1);
    builder.Add("t", DataType::kInt32, {kTableRows, 1}, bytes);
    builder.Write(dir_ / "p");
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
    for (size_t i = 0; i < kCount; ++i) {
      ids_.push_back(i % 3 == 0 ? -1 : static_cast<int64_t>(i * 7 % kTableRows));
      expected_.push_back(i % 3 == 0 ? -static_cast<int32_t>(fill_.size()) - 1
                                     : static_cast<int32_t>(ids_.back()));
      if (i % 3 == 0) fill_.push_back(expected_.back());
    }
  }

  const Tensor& tensor() const { return checkpoint_->catalog().tensors.at(0); }
  static ByteSpan BytesOf(const std::vector<int32_t>& values) {
    return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(int32_t)};
  }
  static MutableByteSpan BytesOf(std::vector<int32_t>* values) {
    return {reinterpret_cast<uint8_t*>(values->data()), values->size() * sizeof(int32_t)};
  }

  const testing::TempDir dir_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::vector<int64_t> ids_;   // every third row is missing
  std::vector<int32_t> fill_;  // -1, -2, ... in order
  std::vector<int32_t> expected_;
};

TEST_F(ManyRowsTest, FillValuesAreTakenInOrder) {
  const RowLayout layout = LayOutRows(*checkpoint_, tensor());
  const RowFillValues values{RowFillValues::Kind::kRows, BytesOf(fill_)};
  const Remapping remapping{ids_, kCount};
  const CellFillValues cells{CellFillValues::Kind::kCells, BytesOf(fill_)};
  for (const int threads : {1, 3}) {
    std::vector<int32_t> out(kCount);
    GatherRows(*checkpoint_, tensor(), layout, RowIds(std::span<const int64_t>(ids_)), values,
               BytesOf(&out), threads);
    EXPECT_EQ(out, expected_);
    out.assign(kCount, 0);
    RemapTable(*checkpoint_, tensor(), layout, remapping, cells, BytesOf(&out), sizeof(int32_t),
               threads);
    EXPECT_EQ(out, expected_);
  }
}

TEST_F(ManyRowsTest, NothingIsWrittenIfARowIsNotInTheTable) {
  const RowLayout layout = LayOutRows(*checkpoint_, tensor());
  const std::vector<int32_t> before(kCount, 7);
  for (const int64_t wrong : {kTableRows, kTableRows + 1, -kTableRows - 1, INT64_MAX, INT64_MIN}) {
    std::vector<int64_t> ids(kCount, kTableRows - 1);
    ids.back() = wrong;
    std::vector<int32_t> out = before;
    EXPECT_THROW(GatherRows(*checkpoint_, tensor(), layout, RowIds(std::span<const int64_t>(ids)),
                            {}, BytesOf(&out), 1),
                 std::out_of_range);
    EXPECT_EQ(out, before) << wrong;
  }
}

TEST_F(ManyRowsTest, FileThatHasShrunkIsNotAccessed) {
  const RowLayout layout = LayOutRows(*checkpoint_, tensor());
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 1), 0);
  std::vector<int32_t> out(kCount);
  const std::vector<int64_t> ids(kCount, 3);
  EXPECT_THROW(GatherRows(*checkpoint_, tensor(), layout, RowIds(std::span<const int64_t>(ids)), {},
                          BytesOf(&out), 1),
               CorruptionError);
  const Remapping remapping{ids, kCount};
  const int32_t zero = 0;
  const CellFillValues element{CellFillValues::Kind::kElement,
                               {reinterpret_cast<const uint8_t*>(&zero), sizeof(zero)}};
  EXPECT_THROW(RemapTable(*checkpoint_, tensor(), layout, remapping, element, BytesOf(&out),
                          sizeof(int32_t), 1),
               CorruptionError);
}

}  // namespace
}  // namespace tensorbundle
