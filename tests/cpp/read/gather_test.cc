// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/gather.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle_builder.h"
#include "range_files.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/remap.h"
#include "tensorbundle/read/row_readahead.h"
#include "tensorbundle/read/slice_cover.h"

namespace tensorbundle {
namespace {

using testing::Find;

constexpr int64_t kRows = 4;
constexpr int64_t kColumns = 4;
constexpr uint64_t kRowSize = kColumns * sizeof(float);
constexpr size_t kCount = 50'000;  // several tasks, more than one batch of look-ups

// Row numbers and fill values that change while they are used, because they are in the destination,
// which the rows overwrite. The result does not matter; nothing outside the table is accessed.
class ChangingMemoryTest : public ::testing::Test {
 protected:
  ChangingMemoryTest() {
    testing::BundleBuilder builder(1);
    // As row numbers, these bytes are far outside the table.
    builder.Add("t", DataType::kFloat, {kRows, kColumns}, std::string(kRows * kRowSize, '\x55'));
    // And these are -1, a missing row.
    builder.Add("u", DataType::kFloat, {kRows, kColumns}, std::string(kRows * kRowSize, '\xff'));
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

// Rows that become missing after the fill values were counted.
TEST_F(ChangingMemoryTest, MissingRowsWithoutAFillValue) {
  const Tensor& missing = checkpoint_->catalog().tensors.at(1);
  const RowLayout layout = LayOutRows(*checkpoint_, missing);
  const RowFillValues rows{RowFillValues::Kind::kRows, {}};
  const std::span<const int64_t> ids = IdsInDestination<int64_t>();
  EXPECT_THROW(GatherRows(*checkpoint_, missing, layout, ids, rows, memory_, 1), std::out_of_range);
  const CellFillValues cells{CellFillValues::Kind::kCells, {}};
  const Remapping remapping{IdsInDestination<int64_t>(), kCount};
  EXPECT_THROW(RemapTable(*checkpoint_, missing, layout, remapping, cells, memory_, kRowSize, 1),
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

// Tables that are stored in several ways, read in several ways.
class GatherTest : public ::testing::Test {
 protected:
  static constexpr int64_t kNumRows = 300;
  static constexpr uint64_t kWidth = 64;  // 16 floats: rows that nontemporal copies can copy

  GatherTest() {
    table_ = testing::RandomBytes(kNumRows * kWidth, 5);
    const std::string swapped = testing::Swapped(table_, 4);
    for (const bool big_endian : {false, true}) {
      testing::BundleBuilder builder(2, big_endian);
      const std::string& stored = big_endian ? swapped : table_;
      const std::vector<int64_t> shape{kNumRows, 16};
      builder.data() = "odd";
      builder.Add("whole", DataType::kFloat, shape, stored);
      builder.AddSliced("rows", DataType::kFloat, shape, stored,
                        {{{0, 100}, {0, 16}}, {{100, 50}, {0, 16}}, {{150, 150}, {0, 16}}});
      builder.AddSliced("columns", DataType::kFloat, shape, stored,
                        {{{0, 300}, {0, 3}}, {{0, 300}, {3, 13}}});
      builder.AddSliced("hole", DataType::kFloat, shape, stored,
                        {{{0, 100}, {0, 16}}, {{150, 150}, {0, 16}}});
      builder.AddSliced("double", DataType::kFloat, shape, stored,
                        {{{0, 150}, {0, 16}}, {{100, 200}, {0, 16}}});
      builder.Write(dir_ / (big_endian ? "big" : "little"));
    }
  }

  static std::string Gather(const Checkpoint& checkpoint, const Tensor& tensor, const RowIds& ids,
                            const RowFillValues& fill_values = {}) {
    const RowLayout layout = LayOutRows(checkpoint, tensor);
    const size_t count = std::visit([](auto typed) { return typed.size(); }, ids);
    std::vector<uint8_t> out(count * layout.row_size + 1, 0xee);
    GatherRows(checkpoint, tensor, layout, ids, fill_values, std::span(out).first(out.size() - 1),
               2);
    EXPECT_EQ(out.back(), 0xee);
    return {out.begin(), out.end() - 1};
  }

  template <typename Id>
  std::string Expected(const std::vector<Id>& ids) const {
    std::string rows;
    for (const Id id : ids) {
      const auto row = static_cast<int64_t>(id) + (static_cast<int64_t>(id) < 0 ? kNumRows : 0);
      rows += table_.substr(static_cast<size_t>(row) * kWidth, kWidth);
    }
    return rows;
  }

  const testing::TempDir dir_;
  std::string table_;
};

TEST_F(GatherTest, EveryLayoutInEveryMode) {
  std::vector<int32_t> ids(kNumRows * 2);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % kNumRows);
  ids[5] = -1;
  ids[6] = -kNumRows;
  for (const char* prefix : {"little", "big"}) {
    for (const char* name : {"whole", "rows", "columns"}) {
      for (const IoMode mode : {IoMode::kAuto, IoMode::kPread}) {
        const auto checkpoint = Checkpoint::OpenBundle(dir_ / prefix, mode);
        EXPECT_EQ(Gather(*checkpoint, Find(*checkpoint, name), std::span<const int32_t>(ids)),
                  Expected(ids))
            << prefix << name;
      }
      const auto remote = testing::OpenThroughRanges(dir_ / prefix);
      EXPECT_EQ(Gather(*remote, Find(*remote, name), std::span<const int32_t>(ids)), Expected(ids))
          << prefix << name;
    }
  }
}

TEST_F(GatherTest, EveryTypeOfNumbers) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const Tensor& tensor = Find(*checkpoint, "rows");
  const auto check = [&]<typename Id>(std::vector<Id> ids, Id bad, const std::string& message) {
    EXPECT_EQ(Gather(*checkpoint, tensor, std::span<const Id>(ids)), Expected(ids));
    ids.push_back(bad);
    try {
      Gather(*checkpoint, tensor, std::span<const Id>(ids));
      ADD_FAILURE() << "accepted " << bad;
    } catch (const std::out_of_range& error) {
      EXPECT_EQ(error.what(), message);
    }
  };
  const auto message = [](const std::string& row, int position) {
    return "row " + row + " at position " + std::to_string(position) +
           " is not in tensor 'rows' of 300 rows";
  };
  check(std::vector<int32_t>{0, 299, -300}, 300, message("300", 3));
  check(std::vector<int64_t>{}, int64_t{-301}, message("-301", 0));
  check(std::vector<uint32_t>{7, 299}, UINT32_MAX, message("4294967295", 2));
  check(std::vector<uint64_t>{299}, UINT64_MAX, message("18446744073709551615", 1));
}

// More than 8 MiB of output are written past the caches.
TEST_F(GatherTest, LargeOutput) {
  const std::vector<int64_t> ids = [] {
    std::vector<int64_t> all(140'000);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i % kNumRows);
    return all;
  }();
  for (const char* prefix : {"little", "big"}) {
    const auto checkpoint = Checkpoint::OpenBundle(dir_ / prefix, IoMode::kAuto);
    EXPECT_TRUE(Gather(*checkpoint, Find(*checkpoint, "whole"), std::span<const int64_t>(ids)) ==
                Expected(ids));
  }
}

// Rows that are not in the page cache are requested before they are copied.
TEST_F(GatherTest, ColdRows) {
  const std::vector<int64_t> shape{40'000, 16};
  std::string large(40'000 * kWidth, '\0');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 2654435761u >> 24);
  testing::BundleBuilder builder(2);
  builder.Add("t", DataType::kFloat, shape, large);
  builder.AddSliced("cut", DataType::kFloat, shape, large,
                    {{{0, 9000}, {0, 16}}, {{9000, 31'000}, {0, 7}}, {{9000, 31'000}, {7, 9}}});
  builder.Write(dir_ / "large");
  std::vector<int64_t> ids(10'000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i * 7919 % 40'000);
  std::vector<int64_t> some = ids;
  for (size_t i = 0; i < some.size(); i += 512) some[i] = -1;
  std::vector<int64_t> ascending(10'000);
  std::iota(ascending.begin(), ascending.end(), int64_t{100});
  std::vector<int64_t> sparse(70);  // far apart: requested one by one
  for (size_t i = 0; i < sparse.size(); ++i) sparse[i] = static_cast<int64_t>(i * 571);
  // About ascending, which is judged by a sample: read front to back, by several reads.
  std::vector<int64_t> nearly(20'000);
  for (size_t i = 0; i < nearly.size(); ++i) {
    nearly[i] = static_cast<int64_t>(i % 100 == 50 ? 2 * i - 40 : 2 * i);
    if (i % 1000 == 500) nearly[i] = -1;
  }
  nearly.back() = 39'900;
  std::vector<int64_t> apart(200);  // two groups, farther apart than the buffer is large
  for (size_t i = 0; i < apart.size(); ++i)
    apart[i] = static_cast<int64_t>(i < 40 ? i : 39'000 + i);
  const auto check = [&](const std::vector<int64_t>& rows, RowFillValues::Kind kind) {
    const auto num_missing = static_cast<uint64_t>(std::ranges::count(rows, -1));
    const bool has_rows = kind == RowFillValues::Kind::kRows;  // one for each missing row
    const std::string fill = testing::RandomBytes((has_rows ? num_missing : 1) * kWidth, 5);
    std::string expected;
    size_t next = 0;
    for (const int64_t row : rows) {
      if (row >= 0) {
        expected += large.substr(static_cast<size_t>(row) * kWidth, kWidth);
        continue;
      }
      expected += fill.substr(next, kWidth);
      if (has_rows) next += kWidth;
    }
    for (const char* name : {"t", "cut"}) {
      const auto checkpoint = Checkpoint::OpenBundle(dir_ / "large", IoMode::kAuto);
      for (const uint32_t number : {0u, 1u}) {
        const int descriptor = checkpoint->files().Get(number).descriptor();
        ::fdatasync(descriptor);
        ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
      }
      EXPECT_TRUE(Gather(*checkpoint, Find(*checkpoint, name), std::span<const int64_t>(rows),
                         {kind, AsBytes(fill)}) == expected);
    }
  };
  for (const std::vector<int64_t>* rows : {&ids, &some, &ascending, &sparse, &nearly, &apart}) {
    check(*rows, RowFillValues::Kind::kRow);
    check(*rows, RowFillValues::Kind::kRows);
  }
}

TEST_F(GatherTest, FillsMissingRows) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const std::vector<int32_t> ids{-1, 7, -1};
  const std::string seven = Expected(std::vector<int64_t>{7});
  std::string cells;
  for (uint64_t i = 0; i < 2 * kWidth; ++i) cells += static_cast<char>(i);
  const std::string element = "efgh";
  std::string elements;
  for (uint64_t i = 0; i < kWidth; i += 4) elements += element;
  const std::string row = cells.substr(0, kWidth);
  for (const char* name : {"whole", "rows", "columns"}) {
    const auto gather = [&](RowFillValues::Kind kind, const std::string& bytes) {
      return Gather(*checkpoint, Find(*checkpoint, name), std::span<const int32_t>(ids),
                    {kind, AsBytes(bytes)});
    };
    EXPECT_EQ(gather(RowFillValues::Kind::kElement, element), elements + seven + elements);
    EXPECT_EQ(gather(RowFillValues::Kind::kRow, row), row + seven + row);
    EXPECT_EQ(gather(RowFillValues::Kind::kRows, cells), row + seven + cells.substr(kWidth));
    EXPECT_THROW(gather(RowFillValues::Kind::kElement, "abc"), std::invalid_argument);
    EXPECT_THROW(gather(RowFillValues::Kind::kRow, cells), std::invalid_argument);
    EXPECT_THROW(gather(RowFillValues::Kind::kRows, row), std::invalid_argument);
    EXPECT_THROW(gather(RowFillValues::Kind::kNone, row), std::invalid_argument);
  }
  const std::vector<int64_t> beyond{-2};
  EXPECT_THROW(Gather(*checkpoint, Find(*checkpoint, "whole"), std::span<const int64_t>(beyond),
                      {RowFillValues::Kind::kRow, AsBytes(row)}),
               std::out_of_range);
}

// Rows that are stored nowhere or twice have an error, the others are read.
TEST_F(GatherTest, RowsWithErrors) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  for (const char* name : {"hole", "double"}) {
    const Tensor& tensor = Find(*checkpoint, name);
    const RowLayout layout = LayOutRows(*checkpoint, tensor);
    const std::vector<int64_t> good{0, 99, 150, 299};
    EXPECT_NO_THROW(CheckRows(*checkpoint, tensor, layout, std::span<const int64_t>(good),
                              RowFillValues::Kind::kNone, 1));
    EXPECT_EQ(Gather(*checkpoint, tensor, std::span<const int64_t>(good)).substr(0, 2 * kWidth),
              Expected(std::vector<int64_t>{0, 99}));
    for (const int64_t bad : {int64_t{100}, int64_t{149}}) {
      const std::vector<int64_t> ids{0, bad};
      EXPECT_THROW(CheckRows(*checkpoint, tensor, layout, std::span<const int64_t>(ids),
                             RowFillValues::Kind::kNone, 1),
                   CorruptionError);
      EXPECT_THROW(Gather(*checkpoint, tensor, std::span<const int64_t>(ids)), CorruptionError);
    }
  }
}

// Missing rows have no error of their own.
TEST_F(GatherTest, FillsMissingRowsOfATableWithErrors) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const std::vector<int64_t> ids{-1, 3};
  const std::string fill(kWidth, 'f');
  EXPECT_EQ(Gather(*checkpoint, Find(*checkpoint, "hole"), std::span<const int64_t>(ids),
                   {RowFillValues::Kind::kRow, AsBytes(fill)}),
            fill + Expected(std::vector<int64_t>{3}));
}

TEST_F(GatherTest, CopiesNoRows) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const RowLayout layout = LayOutRows(*checkpoint, Find(*checkpoint, "whole"));
  const RowCopier copier(layout, 1, StoreHint::kCached);
  copier.Copy(
      0,
      [](size_t) {
        ADD_FAILURE();
        return int64_t{0};
      },
      [](uint8_t*) { ADD_FAILURE(); }, nullptr, kWidth);
}

// Only rows that are mapped can be requested from the system.
TEST_F(GatherTest, ReadsAheadMappedRowsOnly) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kPread);
  const auto remote = testing::OpenThroughRanges(dir_ / "little");
  for (const Checkpoint* each : {checkpoint.get(), remote.get()}) {
    const RowLayout layout = LayOutRows(*each, Find(*each, "rows"));
    EXPECT_FALSE(RowReadahead::IsMissing(layout, 7));
    RowReadahead readahead(layout);
    readahead.Add(7);
    readahead.Start();
  }
  const RowLayout hole = LayOutRows(*checkpoint, Find(*checkpoint, "hole"));
  EXPECT_FALSE(RowReadahead::IsMissing(hole, 120));
}

TEST_F(GatherTest, RejectsADestinationOfAnotherSize) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const Tensor& tensor = Find(*checkpoint, "whole");
  const RowLayout layout = LayOutRows(*checkpoint, tensor);
  const std::vector<int32_t> ids{1, 2};
  std::vector<uint8_t> out(2 * kWidth - 1);
  EXPECT_THROW(GatherRows(*checkpoint, tensor, layout, std::span<const int32_t>(ids), {}, out, 1),
               std::invalid_argument);
}

TEST_F(GatherTest, DoesNotAccessAShrunkFile) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const Tensor& tensor = Find(*checkpoint, "whole");
  const RowLayout layout = LayOutRows(*checkpoint, tensor);
  std::filesystem::resize_file(DataFilePath(dir_ / "little", 0, 2), 100);
  const std::vector<int32_t> ids{299};
  std::vector<uint8_t> out(kWidth);
  EXPECT_THROW(GatherRows(*checkpoint, tensor, layout, std::span<const int32_t>(ids), {}, out, 1),
               CorruptionError);
}

TEST_F(GatherTest, LaysOutSomeRows) {
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const RowLayout layout = LayOutRows(*checkpoint, Find(*checkpoint, "rows"), {120, 130});
  ASSERT_EQ(layout.groups.size(), 3u);
  EXPECT_TRUE(layout.has_errors);
  EXPECT_THROW(layout.RequireRow(99), UnsupportedError);
  EXPECT_NO_THROW(layout.RequireRow(149));
  EXPECT_THROW(layout.RequireRow(150), UnsupportedError);
}

// A slice that cannot be read makes an error of each group of its rows.
TEST_F(GatherTest, LaysOutRowsOfMissingFilesAsErrors) {
  std::filesystem::remove(DataFilePath(dir_ / "little", 1, 2));
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const RowLayout layout = LayOutRows(*checkpoint, Find(*checkpoint, "rows"));
  EXPECT_NO_THROW(layout.RequireRow(0));
  EXPECT_THROW(layout.RequireRow(100), CheckpointNotFoundError);
  EXPECT_NO_THROW(layout.RequireRow(150));
}

// Ranges are read whole, and compared with their checksum.
TEST_F(GatherTest, ComparesSlicesThatAreReadInRanges) {
  testing::BundleBuilder builder;
  builder.Add("t", DataType::kInt8, {3'000'000}, std::string(3'000'000, 'x'));
  builder.data()[2'999'999] = 'y';
  builder.Write(dir_ / "bad");
  const auto checkpoint = testing::OpenThroughRanges(dir_ / "bad");
  const RowLayout layout = LayOutRows(*checkpoint, Find(*checkpoint, "t"));
  EXPECT_THROW(layout.RequireRow(0), CorruptionError);
  // A slice is compared once.
  builder.data()[2'999'999] = 'x';
  builder.Write(dir_ / "good");
  const auto good = testing::OpenThroughRanges(dir_ / "good");
  for (int round = 0; round < 2; ++round) {
    EXPECT_NO_THROW(LayOutRows(*good, Find(*good, "t")).RequireRow(0));
    EXPECT_TRUE(good->IsVerified(good->catalog().slices.at(0)));
  }
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
