// SPDX-License-Identifier: Apache-2.0
// Checkpoints whose files are read by requests: the same values as from local files, and how many
// requests they take.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "range_files.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/copy_layout.h"
#include "tensorbundle/read/fetched_rows.h"
#include "tensorbundle/read/gather.h"
#include "tensorbundle/read/locate.h"
#include "tensorbundle/read/read_box.h"
#include "tensorbundle/read/remap.h"
#include "tensorbundle/read/verify.h"

namespace tensorbundle {
namespace {

using testing::Find;
using testing::LocalRequests;

constexpr int64_t kRows = 20'000;
constexpr uint64_t kWidth = 64;
constexpr int kSmall = 50;

class RequestsTest : public ::testing::Test {
 protected:
  RequestsTest() {
    table_ = testing::RandomBytes(kRows * kWidth, 7);
    const std::string swapped = testing::Swapped(table_, 4);
    for (const bool big_endian : {false, true}) {
      testing::BundleBuilder builder(2, big_endian);
      const std::string& stored = big_endian ? swapped : table_;
      const std::vector<int64_t> shape{kRows, 16};
      builder.Add("whole", DataType::kFloat, shape, stored);
      builder.AddSliced("rows", DataType::kFloat, shape, stored,
                        {{{0, 9000}, {0, 16}}, {{9000, 11'000}, {0, 16}}});
      builder.AddSliced("columns", DataType::kFloat, shape, stored,
                        {{{0, kRows}, {0, 3}}, {{0, kRows}, {3, 13}}});
      for (int i = 0; i < kSmall; ++i) {
        builder.Add("small" + std::to_string(100 + i), DataType::kFloat, {16},
                    stored.substr(static_cast<size_t>(i) * kWidth, kWidth));
      }
      builder.Write(dir_ / (big_endian ? "big" : "little"));
    }
  }

  std::string Row(int64_t row) const {
    return table_.substr(static_cast<size_t>(row) * kWidth, kWidth);
  }

  // Calls body(checkpoint, tensor) for each byte order and each way to store the table.
  template <typename Body>
  void ForEach(const Body& body) {
    for (const char* prefix : {"little", "big"}) {
      const auto checkpoint = testing::OpenThroughRequests(dir_ / prefix);
      for (const char* name : {"whole", "rows", "columns"}) {
        SCOPED_TRACE(std::string(prefix) + " " + name);
        body(*checkpoint, Find(*checkpoint, name));
      }
    }
  }

  const testing::TempDir dir_;
  std::string table_;
};

TEST_F(RequestsTest, ReadsTheIndexByOneRequest) {
  LocalRequests::Take();
  testing::OpenThroughRequests(dir_ / "little");
  EXPECT_EQ(LocalRequests::Take().size(), 1);
}

TEST_F(RequestsTest, GathersRows) {
  std::mt19937_64 random(3);
  ForEach([&](const Checkpoint& checkpoint, const Tensor& tensor) {
    const RowLayout layout = LayOutRows(checkpoint, tensor);
    EXPECT_TRUE(layout.has_requests);
    std::vector<int64_t> ids(40'000);  // more than a task
    std::string expected;
    for (int64_t& id : ids) {
      id = static_cast<int64_t>(random() % (kRows + 1)) - 1;
      expected += id < 0 ? std::string(kWidth, '\x11') : Row(id);
    }
    const std::vector<uint8_t> row(kWidth, 0x11);
    const RowFillValues fill{RowFillValues::Kind::kRow, row};
    std::vector<uint8_t> out(expected.size());
    GatherRows(checkpoint, tensor, layout, std::span<const int64_t>(ids), fill, out, 3);
    EXPECT_EQ(std::string(out.begin(), out.end()), expected);
  });
}

TEST_F(RequestsTest, OneRowTakesItsBytes) {
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "little");
  const Tensor& tensor = Find(*checkpoint, "whole");
  const RowLayout layout = LayOutRows(*checkpoint, tensor);
  const std::vector<int64_t> ids{777};
  std::vector<uint8_t> out(kWidth);
  LocalRequests::Take();
  GatherRows(*checkpoint, tensor, layout, std::span<const int64_t>(ids), {}, out, 3);
  EXPECT_EQ(std::string(out.begin(), out.end()), Row(777));
  const auto requests = LocalRequests::Take();
  ASSERT_EQ(requests.size(), 1);
  EXPECT_EQ(requests[0].size, kWidth);
}

TEST_F(RequestsTest, JoinsRowsThatAreCloseTogether) {
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "little");
  const RowLayout layout = LayOutRows(*checkpoint, Find(*checkpoint, "whole"));
  const auto gap = static_cast<int64_t>(kMaxRequestGap / kWidth);
  for (const auto& [rows, count] :
       std::vector<std::pair<std::vector<int64_t>, size_t>>{{{}, 0},
                                                            {{5}, 1},
                                                            {{9, 5, 5, 6, 9}, 1},
                                                            {{0, gap + 1}, 1},
                                                            {{0, gap + 2}, 2},
                                                            {{kRows - 1, 0, kRows / 2}, 3}}) {
    LocalRequests::Take();
    const RowLayout fetched = FetchRows(layout, rows, 2);
    EXPECT_EQ(LocalRequests::Take().size(), count);
    EXPECT_EQ(fetched.decoded.at(0)->size(), std::set(rows.begin(), rows.end()).size() * kWidth);
    for (const int64_t row : rows) {
      const RowGroup& group = fetched.At(row);
      const RowSegment& segment = group.segments.at(0);
      const auto* bytes = segment.memory + static_cast<uint64_t>(row - group.begin) * kWidth;
      EXPECT_EQ(std::string(bytes, bytes + kWidth), Row(row));
    }
  }
}

TEST_F(RequestsTest, MissingRowsAreNotFetched) {
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "little");
  const RowLayout layout = LayOutRows(*checkpoint, Find(*checkpoint, "whole"));
  const RowLayout fetched = FetchRows(layout, {-1, 7, -1}, 2);
  EXPECT_EQ(fetched.decoded.at(0)->size(), kWidth);
  EXPECT_EQ(fetched.begins, std::vector<int64_t>{7});
}

TEST(RowsPerFetch, IsAtLeastOneAndAtMost64MiB) {
  RowLayout layout;
  for (const auto& [row_size, rows] : std::vector<std::pair<uint64_t, size_t>>{
           {0, 16384}, {1, 16384}, {4096, 16384}, {4097, 16380}, {64 << 20, 1}, {65 << 20, 1}}) {
    layout.row_size = row_size;
    EXPECT_EQ(RowsPerFetch(layout), rows) << row_size;
  }
}

// A slice in memory, and one that is read by requests.
TEST_F(RequestsTest, GathersFromSlicesOfBothKinds) {
  const auto checkpoint =
      Checkpoint::OpenRemote(dir_ / "little", [](const std::string& path, ReadMode mode) {
        return path.find("data-00000") != std::string::npos ? testing::OpenRanges(path, mode)
                                                            : testing::OpenByRequests(path, mode);
      });
  const Tensor& tensor = Find(*checkpoint, "rows");
  const RowLayout layout = LayOutRows(*checkpoint, tensor);
  const std::vector<int64_t> ids{8999, 9000, 1, 19'999, 0};
  std::string expected;
  for (const int64_t id : ids) expected += Row(id);
  std::vector<uint8_t> out(expected.size());
  GatherRows(*checkpoint, tensor, layout, std::span<const int64_t>(ids), {}, out, 2);
  EXPECT_EQ(std::string(out.begin(), out.end()), expected);
}

// Wide rows are fetched 64 at a time.
TEST_F(RequestsTest, GathersAndRemapsWideRows) {
  constexpr uint64_t kWide = uint64_t{1} << 20;
  const std::string table = testing::RandomBytes(3 * kWide, 9);
  testing::BundleBuilder builder;
  builder.Add("t", DataType::kFloat, {3, int64_t{kWide / sizeof(float)}}, table);
  builder.Write(dir_ / "wide");
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "wide");
  const Tensor& tensor = Find(*checkpoint, "t");
  const RowLayout layout = LayOutRows(*checkpoint, tensor);
  ASSERT_EQ(RowsPerFetch(layout), 64);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 70; ++i) ids.push_back(i < 64 ? i % 2 : 2);
  std::vector<uint8_t> out(ids.size() * kWide);
  const auto check = [&] {
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto row = static_cast<size_t>(ids[i]);
      ASSERT_EQ(std::memcmp(out.data() + i * kWide, table.data() + row * kWide, kWide), 0) << i;
    }
  };
  GatherRows(*checkpoint, tensor, layout, std::span<const int64_t>(ids), {}, out, 2);
  check();
  out.assign(out.size(), 0);
  const float fill = 0;
  const CellFillValues fills{CellFillValues::Kind::kElement,
                             {reinterpret_cast<const uint8_t*>(&fill), sizeof(fill)}};
  RemapTable(*checkpoint, tensor, layout, {std::span<const int64_t>(ids), ids.size()}, fills, out,
             kWide, 2);
  check();
}

TEST_F(RequestsTest, RemapsTables) {
  std::mt19937_64 random(4);
  std::vector<int64_t> rows(20'000);  // more than a task
  for (int64_t& row : rows) row = static_cast<int64_t>(random() % (kRows + 1)) - 1;
  const std::vector<int64_t> columns{3, -1, 0, 15};
  const auto local = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const float fill = 0.25;
  const CellFillValues fills{CellFillValues::Kind::kElement,
                             {reinterpret_cast<const uint8_t*>(&fill), sizeof(fill)}};
  ForEach([&](const Checkpoint& checkpoint, const Tensor& tensor) {
    for (const bool all_columns : {false, true}) {
      Remapping remapping{std::span<const int64_t>(rows), rows.size()};
      if (!all_columns) remapping.columns = std::span<const int64_t>(columns);
      const uint64_t stride = all_columns ? kWidth : columns.size() * sizeof(float);
      std::vector<uint8_t> ours(rows.size() * stride);
      std::vector<uint8_t> expected(ours.size());
      RemapTable(checkpoint, tensor, LayOutRows(checkpoint, tensor), remapping, fills, ours, stride,
                 3, /*fresh=*/true);
      const Tensor& whole = Find(*local, "whole");
      RemapTable(*local, whole, LayOutRows(*local, whole), remapping, fills, expected, stride, 1);
      EXPECT_EQ(ours, expected);
    }
  });
}

TEST_F(RequestsTest, ReadsBoxes) {
  std::mt19937_64 random(5);
  const auto local = Checkpoint::OpenBundle(dir_ / "little", IoMode::kAuto);
  const Tensor& whole = Find(*local, "whole");
  ForEach([&](const Checkpoint& checkpoint, const Tensor& tensor) {
    for (int turn = 0; turn < 30; ++turn) {
      Box box;
      for (const int64_t size : {kRows, int64_t{16}}) {
        const auto start = static_cast<int64_t>(random() % static_cast<uint64_t>(size));
        box.push_back(
            {start, 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(size - start))});
      }
      std::vector<uint8_t> ours(Volume(box) * sizeof(float));
      std::vector<uint8_t> expected(ours.size());
      ReadBox(checkpoint, tensor, box, ours, {.threads = 3});
      ReadBox(*local, whole, box, expected, {.threads = 1});
      ASSERT_EQ(ours, expected) << ToString(box);
    }
  });
}

TEST_F(RequestsTest, ReadsSmallTensorsTogether) {
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "little");
  std::vector<std::vector<uint8_t>> outs(kSmall, std::vector<uint8_t>(kWidth));
  std::vector<TensorRead> reads;
  for (int i = 0; i < kSmall; ++i) {
    const size_t at = static_cast<size_t>(i);
    reads.push_back({&Find(*checkpoint, "small" + std::to_string(100 + i)), outs[at]});
  }
  std::vector<uint8_t> table(table_.size());
  reads.push_back({&Find(*checkpoint, "whole"), table});
  LocalRequests::Take();
  ReadTensors(*checkpoint, reads, {.threads = 2});
  EXPECT_EQ(LocalRequests::Take().size(), 2);
  EXPECT_EQ(std::string(table.begin(), table.end()), table_);
  for (int i = 0; i < kSmall; ++i) {
    const std::vector<uint8_t>& out = outs[static_cast<size_t>(i)];
    EXPECT_EQ(std::string(out.begin(), out.end()), Row(i));
    EXPECT_TRUE(checkpoint->IsVerified(
        checkpoint->catalog().Slices(*reads[static_cast<size_t>(i)].tensor)[0]));
  }
}

// So that several requests are made at a time.
TEST_F(RequestsTest, SmallTensorsOfOneRequestHaveAtMostAMegabyte) {
  constexpr uint64_t kSize = uint64_t{64} << 10;
  constexpr int kCount = 40;  // 2.5 MiB
  const std::string bytes = testing::RandomBytes(kCount * kSize, 3);
  testing::BundleBuilder builder(1);
  for (int i = 0; i < kCount; ++i) {
    builder.Add(std::to_string(100 + i), DataType::kUint8, {kSize},
                bytes.substr(static_cast<size_t>(i) * kSize, kSize));
  }
  builder.Write(dir_ / "many");
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "many");
  std::vector<uint8_t> out(bytes.size());
  std::vector<TensorRead> reads;
  for (int i = 0; i < kCount; ++i) {
    reads.push_back({&Find(*checkpoint, std::to_string(100 + i)),
                     MutableByteSpan(out).subspan(static_cast<size_t>(i) * kSize, kSize)});
  }
  LocalRequests::Take();
  ReadTensors(*checkpoint, reads, {.threads = 2});
  EXPECT_EQ(LocalRequests::Take().size(), 3);
  EXPECT_EQ(std::string(out.begin(), out.end()), bytes);
}

TEST_F(RequestsTest, ComparesChecksumsOfSmallTensors) {
  testing::BundleBuilder builder(1);
  builder.Add("a", DataType::kFloat, {16}, Row(0));
  builder.Add("b", DataType::kFloat, {16}, Row(1));
  builder.data()[70] ^= 1;
  builder.Write(dir_ / "bad");
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "bad");
  std::vector<uint8_t> a(kWidth);
  std::vector<uint8_t> b(kWidth);
  const std::vector<TensorRead> reads{{&Find(*checkpoint, "a"), a}, {&Find(*checkpoint, "b"), b}};
  EXPECT_THROW(ReadTensors(*checkpoint, reads, {}), CorruptionError);
  ReadTensors(*checkpoint, reads, {.verify = false});
  EXPECT_EQ(std::string(a.begin(), a.end()), Row(0));
}

TEST_F(RequestsTest, VerifiesAndNeverMaps) {
  ForEach([&](const Checkpoint& checkpoint, const Tensor& tensor) {
    const std::vector<size_t> all{checkpoint.catalog().Find(tensor.name)};
    EXPECT_TRUE(VerifyTensors(checkpoint, all, 2, [](uint64_t) {}).corruptions.empty());
    EXPECT_FALSE(ViewTensor(checkpoint, tensor));
    EXPECT_FALSE(CopyOnWriteTensor(checkpoint, tensor));
  });
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "little");
  EXPECT_EQ(ViewTensor(*checkpoint, Find(*checkpoint, "whole")).reason, NoViewReason::kRemote);
}

TEST_F(RequestsTest, ReadsSmallTensorsOfTwoFilesFromEach) {
  testing::BundleBuilder builder(2);
  builder.Add("a", DataType::kFloat, {16}, Row(0), 0);
  builder.Add("b", DataType::kFloat, {16}, Row(1), 1);
  builder.Write(dir_ / "two");
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "two");
  std::vector<uint8_t> a(kWidth);
  std::vector<uint8_t> b(kWidth);
  const std::vector<TensorRead> reads{{&Find(*checkpoint, "a"), a}, {&Find(*checkpoint, "b"), b}};
  ReadTensors(*checkpoint, reads, {});
  EXPECT_EQ(std::string(a.begin(), a.end()), Row(0));
  EXPECT_EQ(std::string(b.begin(), b.end()), Row(1));
}

TEST_F(RequestsTest, ShortDataFileIsDiagnosed) {
  const std::string path = dir_ / "little.data-00000-of-00002";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  const auto checkpoint = testing::OpenThroughRequests(dir_ / "little");
  EXPECT_NE(checkpoint->files().Diagnosis(0).error, FileError::kNone);
  EXPECT_EQ(checkpoint->files().Diagnosis(1).error, FileError::kNone);
}

// Two threads open a file at the same time: both use the file of the first.
TEST_F(RequestsTest, ThreadsShareAFile) {
  std::atomic<int> num_opening{0};
  const auto checkpoint =
      Checkpoint::OpenRemote(dir_ / "little", [&](const std::string& path, ReadMode mode) {
        auto file = testing::OpenByRequests(path, mode);
        if (path.find(".data-") == std::string::npos) return file;
        ++num_opening;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (num_opening < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        return file;
      });
  const File* of_thread = nullptr;
  std::thread thread([&] { of_thread = &checkpoint->files().Get(0); });
  const File* const of_caller = &checkpoint->files().Get(0);
  thread.join();
  EXPECT_EQ(num_opening, 2);
  EXPECT_EQ(of_caller, of_thread);
  EXPECT_EQ(&checkpoint->files().Get(0), of_thread);
}

// A missing file is an error of its tensors, each time until it is there.
TEST_F(RequestsTest, MissingFile) {
  const std::string path = dir_ / "little.data-00001-of-00002";
  const auto checkpoint = Checkpoint::OpenRemote(
      dir_ / "little", [](const std::string& wanted, ReadMode mode) -> std::shared_ptr<const File> {
        if (wanted.find(".data-") != std::string::npos) {
          throw CheckpointNotFoundError("no such file", wanted);
        }
        return testing::OpenByRequests(wanted, mode);
      });
  const Tensor& tensor = Find(*checkpoint, "whole");
  std::vector<uint8_t> out(table_.size());
  for (int turn = 0; turn < 2; ++turn) {
    try {
      ReadBox(*checkpoint, tensor, WholeBox(checkpoint->catalog().Shape(tensor)), out, {});
      ADD_FAILURE() << "there is no file";
    } catch (const CheckpointNotFoundError& error) {
      EXPECT_NE(std::string(error.what()).find("is missing; was the checkpoint copied in part?"),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace tensorbundle
