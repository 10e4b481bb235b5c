// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/read_box.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "random_boxes.h"
#include "range_files.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/io/parallel_read.h"
#include "tensorbundle/read/copy_layout.h"

namespace tensorbundle {
namespace {

using testing::BundleBuilder;
using testing::CutOut;
using testing::LocalReader;
using testing::OpenThroughRanges;
using testing::Random;
using testing::RandomTiling;
using testing::Record;
using testing::TempDir;

std::string RandomBytes(Random* random, size_t size) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>((*random)());
  return bytes;
}

std::string Read(const Checkpoint& checkpoint, const std::string& name, const Box& box,
                 const ReadOptions& options = {}) {
  const Tensor& tensor = checkpoint.catalog().tensors.at(checkpoint.catalog().Find(name));
  std::vector<uint8_t> out(Volume(box) * RequireKnownType(tensor).item_size, 0xee);
  ReadBox(checkpoint, tensor, box, out, options);
  return {out.begin(), out.end()};
}

class ReadBoxTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Checkpoint> Open(const BundleBuilder& builder,
                                         IoMode mode = IoMode::kAuto) {
    builder.Write(dir_ / "p");
    return Checkpoint::OpenBundle(dir_ / "p", mode);
  }

  const TempDir dir_;
  Random random_{31};
};

TEST_F(ReadBoxTest, ReadsRandomBoxesOfRandomTilingsInEveryMode) {
  const DataType dtypes[] = {DataType::kInt8, DataType::kHalf, DataType::kFloat,
                             DataType::kComplex128};
  for (int round = 0; round < 60; ++round) {
    const std::vector<int64_t> shape = testing::RandomShape(&random_, 4, 9);
    const Box whole = WholeBox(shape);
    const DataType dtype = dtypes[random_() % 4];
    const size_t item_size = FindDataType(dtype)->item_size;
    const std::string bytes = RandomBytes(&random_, Volume(whole) * item_size);
    std::vector<Box> slices = RandomTiling(&random_, whole, static_cast<int>(random_() % 12));
    std::shuffle(slices.begin(), slices.end(), random_);
    BundleBuilder builder(3);
    builder.data() = "odd";  // nothing is aligned
    builder.AddSliced("t", dtype, shape, bytes, slices);
    for (const IoMode mode : {IoMode::kAuto, IoMode::kMmap, IoMode::kPread}) {
      const auto checkpoint = Open(builder, mode);
      for (int query = 0; query < 4; ++query) {
        const Box box = query == 0 ? whole : testing::RandomBoxIn(&random_, whole);
        const ReadOptions options = {1 + static_cast<int>(random_() % 4), random_() % 2 == 0};
        ASSERT_EQ(Read(*checkpoint, "t", box, options), CutOut(bytes, shape, box, item_size))
            << ShapeToString(shape) << ToString(box);
      }
    }
  }
}

TEST_F(ReadBoxTest, ReadsEachSliceOnceThroughRanges) {
  const std::vector<int64_t> shape = {3000, 40, 20};
  const std::string bytes = RandomBytes(&random_, 3000 * 40 * 20 * 2);
  const Box whole = WholeBox(shape);
  for (const bool big_endian : {false, true}) {
    BundleBuilder builder(2, big_endian);
    builder.data() = "odd";
    builder.Add("whole", DataType::kHalf, shape, bytes);
    builder.AddSliced("tiled", DataType::kHalf, shape, bytes, RandomTiling(&random_, whole, 9));
    builder.Write(dir_ / "p");
    const auto local = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
    for (int query = 0; query < 12; ++query) {
      const Box box = query == 0 ? whole : testing::RandomBoxIn(&random_, whole);
      for (const char* name : {"whole", "tiled"}) {
        const auto checkpoint = OpenThroughRanges(dir_ / "p");
        EXPECT_EQ(checkpoint->files().MapForReading(0), nullptr);
        LocalReader::num_bytes = 0;
        ASSERT_EQ(Read(*checkpoint, name, box, {.verify_partial = true}), Read(*local, name, box))
            << name << ToString(box);
        EXPECT_LE(LocalReader::num_bytes, bytes.size()) << name << ToString(box);
        ASSERT_EQ(Read(*OpenThroughRanges(dir_ / "p"), name, box,
                       {.fresh = true, .verify_partial = true}),
                  Read(*local, name, box))
            << name << ToString(box);
      }
    }
  }
}

TEST_F(ReadBoxTest, ComparesChecksumsOfSlicesThatItReadsInPart) {
  BundleBuilder builder;
  builder.Add("t", DataType::kInt8, {1000, 3000}, RandomBytes(&random_, 3'000'000));
  builder.data()[2'999'999] ^= 1;
  builder.Write(dir_ / "p");
  for (const Box& box : {Box{{0, 1}, {0, 1}}, Box{{0, 900}, {5, 7}}, Box{{3, 10}, {0, 3000}}}) {
    const auto checkpoint = OpenThroughRanges(dir_ / "p");
    EXPECT_THROW(Read(*checkpoint, "t", box, {.verify_partial = true}), CorruptionError);
    EXPECT_THROW(Read(*Open(builder), "t", box, {.verify_partial = true}), CorruptionError);
    EXPECT_NO_THROW(Read(*checkpoint, "t", box));
  }
}

TEST_F(ReadBoxTest, ComparesChecksumsAgain) {
  BundleBuilder builder;
  builder.Add("t", DataType::kInt8, {3000}, RandomBytes(&random_, 3000));
  const auto checkpoint = Open(builder);
  const ReadOptions again{.verify_partial = true, .verify_again = true};
  const Box part = {{5, 7}};
  Read(*checkpoint, "t", {{0, 3000}});
  ASSERT_TRUE(checkpoint->IsVerified(checkpoint->catalog().slices[0]));
  EXPECT_NO_THROW(Read(*checkpoint, "t", part, again));
  std::fstream(dir_ / "p.data-00000-of-00001").seekp(2000) << "rewritten";
  EXPECT_NO_THROW(Read(*checkpoint, "t", part, {.verify_partial = true}));
  EXPECT_THROW(Read(*checkpoint, "t", part, again), CorruptionError);
}

TEST_F(ReadBoxTest, ReadsWithDirectIo) {
  const std::string bytes = RandomBytes(&random_, 600'000);
  BundleBuilder builder;
  builder.data() = "odd";
  builder.Add("t", DataType::kInt8, {600, 1000}, bytes);
  const auto checkpoint = Open(builder, IoMode::kDirect);
  try {
    checkpoint->files().Get(0);
  } catch (const UnsupportedError&) {
    GTEST_SKIP() << "no direct I/O here";
  }
  for (const Box& box :
       {Box{{0, 600}, {0, 1000}}, Box{{1, 599}, {7, 100}}, Box{{599, 1}, {999, 1}}}) {
    EXPECT_EQ(Read(*checkpoint, "t", box, {3, true}),
              CutOut(bytes, std::vector<int64_t>{600, 1000}, box, 1));
  }
}

// More than one chunk; long and short spans; spans with small and large gaps.
TEST_F(ReadBoxTest, LargeTensors) {
  const std::vector<int64_t> shape = {40, 70'000};
  const std::string bytes = RandomBytes(&random_, 40 * 70'000);
  BundleBuilder builder;
  builder.Add("whole", DataType::kInt8, shape, bytes);
  builder.AddSliced("halves", DataType::kInt8, shape, bytes,
                    {{{0, 40}, {0, 35'000}}, {{0, 40}, {35'000, 35'000}}});
  builder.AddSliced("rows", DataType::kInt8, shape, bytes,
                    {{{0, 7}, {0, 70'000}}, {{7, 33}, {0, 70'000}}});
  std::vector<std::pair<Box, std::string>> wanted;
  for (const Box& box : {Box{{3, 30}, {34'990, 20}}, Box{{0, 40}, {0, 69'999}},
                         Box{{5, 1}, {1, 69'000}}, WholeBox(shape)}) {
    wanted.emplace_back(box, CutOut(bytes, shape, box, 1));
  }
  for (const IoMode mode : {IoMode::kAuto, IoMode::kPread}) {
    for (const bool verify : {true, false}) {
      const auto checkpoint = Open(builder, mode);
      for (const char* name : {"whole", "halves", "rows"}) {
        for (const auto& [box, expected] : wanted) {
          for (const int threads : {1, 4}) {
            ASSERT_EQ(Read(*checkpoint, name, box, {threads, verify}), expected)
                << name << ToString(box);
          }
        }
      }
    }
  }
}

TEST_F(ReadBoxTest, ReadsManySpansInOneTask) {
  const std::vector<int64_t> shape = {300, 200, 3};
  const std::string bytes = RandomBytes(&random_, 300 * 200 * 3 * 2);
  BundleBuilder builder;
  builder.Add("t", DataType::kInt16, shape, bytes);
  const auto checkpoint = Open(builder);
  for (const Box& box : {Box{{0, 300}, {0, 200}, {1, 1}}, Box{{10, 280}, {190, 10}, {0, 2}}}) {
    EXPECT_EQ(Read(*checkpoint, "t", box, {2, true}), CutOut(bytes, shape, box, 2));
  }
}

TEST_F(ReadBoxTest, BigEndian) {
  const std::vector<int64_t> shape = {30, 5000};
  for (const DataType dtype :
       {DataType::kInt8, DataType::kHalf, DataType::kComplex64, DataType::kComplex128}) {
    const DataTypeInfo& info = *FindDataType(dtype);
    std::string bytes = RandomBytes(&random_, 30 * 5000 * info.item_size);
    BundleBuilder builder(2, /*big_endian=*/true);
    builder.AddSliced("t", dtype, shape, bytes, {{{0, 30}, {0, 2500}}, {{0, 30}, {2500, 2500}}});
    const auto checkpoint = Open(builder);
    SwapBytes({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}, info.swap_size);
    for (const Box& box : {WholeBox(shape), Box{{3, 20}, {2490, 20}}, Box{{2, 1}, {1, 4000}}}) {
      EXPECT_EQ(Read(*checkpoint, "t", box, {2, true}), CutOut(bytes, shape, box, info.item_size));
    }
  }
}

TEST_F(ReadBoxTest, FindsCorruptionInSlicesThatAreReadWhole) {
  const std::vector<int64_t> shape = {4, 100'000};
  const std::string bytes = RandomBytes(&random_, 400'000);
  BundleBuilder builder;
  builder.AddSliced("t", DataType::kInt8, shape, bytes,
                    {{{0, 2}, {0, 100'000}}, {{2, 2}, {0, 100'000}}});
  builder.data()[250'000] = static_cast<char>(builder.data()[250'000] ^ 4);
  const auto checkpoint = Open(builder);
  const Box whole = WholeBox(shape);
  for (const int threads : {1, 3})
    EXPECT_THROW(Read(*checkpoint, "t", whole, {threads, true}), CorruptionError);
  EXPECT_NE(Read(*checkpoint, "t", whole, {1, false}), bytes);
  EXPECT_NO_THROW(Read(*checkpoint, "t", {{0, 2}, {0, 100'000}}));
  EXPECT_TRUE(checkpoint->IsVerified(checkpoint->catalog().slices[0]));
  EXPECT_FALSE(checkpoint->IsVerified(checkpoint->catalog().slices[1]));
  EXPECT_NO_THROW(Read(*checkpoint, "t", {{2, 1}, {0, 10}})) << "part of a slice has no checksum";
}

TEST_F(ReadBoxTest, FindsEveryFlippedByteOfASmallTensor) {
  const std::string bytes = RandomBytes(&random_, 48);
  BundleBuilder builder;
  builder.AddSliced("t", DataType::kFloat, {3, 4}, bytes, {{{0, 3}, {0, 1}}, {{0, 3}, {1, 3}}});
  for (size_t i = 0; i < 48; ++i) {
    BundleBuilder bad = builder;
    bad.data()[i] = static_cast<char>(bad.data()[i] ^ 0x10);
    EXPECT_THROW(Read(*Open(bad), "t", {{0, 3}, {0, 4}}), CorruptionError) << i;
  }
}

TEST_F(ReadBoxTest, RejectsHolesOverlapsAndMissingFiles) {
  BundleBuilder builder(2);
  builder.AddSliced("hole", DataType::kInt8, {4}, "abcd", {{{0, 1}}, {{2, 2}}});
  builder.AddSliced("overlap", DataType::kInt8, {4}, "abcd", {{{0, 3}}, {{2, 2}}});
  builder.AddSliced("apart", DataType::kInt8, {4}, "abcd", {{{0, 2}}, {{2, 2}}});
  const auto whole = Open(builder);
  EXPECT_THROW(Read(*whole, "hole", {{0, 4}}), CorruptionError);
  EXPECT_EQ(Read(*whole, "hole", {{2, 2}}), "cd");
  EXPECT_THROW(Read(*whole, "overlap", {{0, 4}}), CorruptionError);
  std::filesystem::remove(DataFilePath(dir_ / "p", 1, 2));
  const auto halved = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  EXPECT_THROW(Read(*halved, "apart", {{0, 4}}), CheckpointNotFoundError);
  EXPECT_EQ(Read(*halved, "apart", {{0, 2}}), "ab");
  EXPECT_THROW(Read(*halved, "apart", {{0, 4}}), CheckpointNotFoundError) << "the second time too";
}

TEST_F(ReadBoxTest, RejectsOnlyTensorsBeyondTheEndOfAShortFile) {
  BundleBuilder builder;
  builder.Add("a", DataType::kInt8, {4}, "abcd").Add("b", DataType::kInt8, {4}, "efgh");
  builder.Write(dir_ / "p");
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 1), 7);
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  EXPECT_EQ(Read(*checkpoint, "a", {{0, 4}}), "abcd");
  EXPECT_THROW(Read(*checkpoint, "b", {{0, 1}}), CorruptionError);
}

TEST_F(ReadBoxTest, ThrowsIfAFileShrinks) {
  BundleBuilder builder;
  builder.Add("t", DataType::kInt8, {100'000}, RandomBytes(&random_, 100'000));
  const auto checkpoint = Open(builder);
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 1), 10);
  EXPECT_THROW(Read(*checkpoint, "t", {{0, 100'000}}, {2, true}), CorruptionError);
}

TEST_F(ReadBoxTest, EmptyBoxesAndTensors) {
  BundleBuilder builder(2);
  builder.Add("t", DataType::kFloat, {2, 3}, RandomBytes(&random_, 24));
  builder.Add("none", DataType::kFloat, {0, 3}, "", 1);
  const auto checkpoint = Open(builder);
  EXPECT_EQ(Read(*checkpoint, "t", {{1, 0}, {0, 3}}), "");
  EXPECT_EQ(Read(*checkpoint, "none", {{0, 0}, {0, 3}}), "");
  std::filesystem::remove(DataFilePath(dir_ / "p", 1, 2));
  EXPECT_THROW(Read(*Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto), "none", {{0, 0}, {0, 3}}),
               CheckpointNotFoundError);
}

TEST_F(ReadBoxTest, RejectsInvalidArguments) {
  BundleBuilder builder;
  builder.Add("t", DataType::kFloat, {2}, "12345678");
  builder.Add("s", DataType::kString, {0}, "\xd8\xea\x82\xa2");
  builder.Put("u", Record{static_cast<DataType>(99), {2}, 0, 0, 8}.Message());
  const auto checkpoint = Open(builder);
  const Catalog& catalog = checkpoint->catalog();
  std::vector<uint8_t> out(7);
  EXPECT_THROW(ReadBox(*checkpoint, catalog.tensors[catalog.Find("t")], {{0, 2}}, out, {}),
               std::invalid_argument);
  EXPECT_THROW(ReadBox(*checkpoint, catalog.tensors[catalog.Find("s")], {{0, 0}}, {}, {}),
               UnsupportedError);
  EXPECT_THROW(ReadBox(*checkpoint, catalog.tensors[catalog.Find("u")], {{0, 2}}, out, {}),
               UnsupportedError);
}

// RequireBox() finds the errors of a read before there is memory for it.
TEST_F(ReadBoxTest, RequiresWhatAReadNeeds) {
  BundleBuilder builder(2);
  builder.AddSliced("hole", DataType::kInt8, {4}, "abcd", {{{0, 1}}, {{2, 2}}});
  builder.Add("gone", DataType::kInt8, {4}, "abcd", 1);
  builder.Put("u", Record{static_cast<DataType>(99), {2}, 0, 0, 8}.Message());
  builder.Write(dir_ / "p");
  std::filesystem::remove(DataFilePath(dir_ / "p", 1, 2));
  const auto checkpoint = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  const auto require = [&](const char* name, const Box& box) {
    const Catalog& catalog = checkpoint->catalog();
    RequireBox(*checkpoint, catalog.tensors.at(catalog.Find(name)), box);
  };
  require("hole", {{0, 1}});
  EXPECT_THROW(require("hole", {{0, 2}}), CorruptionError);
  EXPECT_THROW(require("gone", {{0, 1}}), CheckpointNotFoundError);
  require("gone", {{1, 0}});  // nothing is read
  EXPECT_THROW(require("u", {{0, 1}}), UnsupportedError);
}

// Contiguous rows of one slice are read without a plan, everything else with one.
TEST_F(ReadBoxTest, SmallReads) {
  const std::vector<int64_t> shape = {6, 5, 4};
  const std::string bytes = RandomBytes(&random_, 6 * 5 * 4 * 2);
  for (const bool big_endian : {false, true}) {
    BundleBuilder builder(1, big_endian);
    std::string stored = bytes;
    if (big_endian) SwapBytes({reinterpret_cast<uint8_t*>(stored.data()), stored.size()}, 2);
    builder.Add("whole", DataType::kHalf, shape, stored);
    builder.AddSliced("one", DataType::kHalf, shape, stored, {WholeBox(shape)});
    const auto checkpoint = Open(builder);
    for (const char* name : {"whole", "one"}) {
      for (const Box& box : {Box{{0, 6}, {0, 5}, {0, 4}}, Box{{2, 3}, {0, 5}, {0, 4}},
                             Box{{2, 3}, {1, 4}, {0, 4}}, Box{{2, 1}, {0, 5}, {1, 2}}}) {
        for (const bool verify : {false, true}) {
          EXPECT_EQ(Read(*checkpoint, name, box, {.verify = verify}), CutOut(bytes, shape, box, 2))
              << name << ToString(box);
        }
      }
    }
  }
  BundleBuilder scalar;
  scalar.Add("s", DataType::kHalf, {}, "ab");
  EXPECT_EQ(Read(*Open(scalar), "s", {}), "ab");
}

// Large tensors are cut into tasks, small ones are tasks; both are compared with their checksums.
TEST_F(ReadBoxTest, ReadsManyTensors) {
  BundleBuilder builder(2);
  std::vector<std::string> values;
  for (const int64_t size : {3, 1'500'000, 0, 400'001, 10}) {
    values.push_back(RandomBytes(&random_, static_cast<size_t>(size)));
    builder.Add("t" + std::to_string(values.size()), DataType::kInt8, {size}, values.back(),
                static_cast<int32_t>(values.size() % 2));
  }
  const auto read_all = [&](const Checkpoint& checkpoint, int threads) {
    std::vector<std::string> out;
    std::vector<TensorRead> reads;
    for (const std::string& value : values) out.emplace_back(value.size(), 'x');
    for (size_t i = values.size(); i-- > 0;) {
      reads.push_back({&checkpoint.catalog().tensors[i],
                       {reinterpret_cast<uint8_t*>(out[i].data()), out[i].size()}});
    }
    ReadTensors(checkpoint, reads, {.threads = threads});
    return out;
  };
  for (const int threads : {0, 1, 3}) EXPECT_EQ(read_all(*Open(builder), threads), values);
  for (const size_t at : {size_t{0}, size_t{1'000'000}}) {
    BundleBuilder bad = builder;
    bad.data(at == 0 ? 1 : 0)[at] ^= 1;
    EXPECT_THROW(read_all(*Open(bad), 2), CorruptionError);
  }
}

TEST_F(ReadBoxTest, RejectsAMissingChecksum) {
  BundleBuilder builder;
  builder.Store(DataType::kInt8, {2}, "ab");
  builder.Put("t", testing::VarintField(1, 6) +
                       testing::BytesField(2, testing::ShapeMessage(std::vector<int64_t>{2})) +
                       testing::VarintField(5, 2));
  const auto checkpoint = Open(builder);
  EXPECT_EQ(Read(*checkpoint, "t", {{0, 2}}, {1, false}), "ab");
  EXPECT_THROW(Read(*checkpoint, "t", {{0, 2}}, {1, true}), CorruptionError);
}

TEST_F(ReadBoxTest, ManyThreadsReadOneCheckpoint) {
  const std::vector<int64_t> shape = {64, 3000};
  const std::string bytes = RandomBytes(&random_, 64 * 3000);
  BundleBuilder builder(2);
  builder.AddSliced("t", DataType::kInt8, shape, bytes,
                    RandomTiling(&random_, WholeBox(shape), 10));
  const auto checkpoint = Open(builder);
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 8; ++seed) {
    threads.emplace_back([&, seed] {
      Random random(seed);
      for (int round = 0; round < 10; ++round) {
        const Box box =
            round == 0 ? WholeBox(shape) : testing::RandomBoxIn(&random, WholeBox(shape));
        EXPECT_EQ(Read(*checkpoint, "t", box, {2, true}), CutOut(bytes, shape, box, 1));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

static_assert(kReadChunkSize < 400'000, "the tests above need tensors of more than one chunk");

TEST_F(ReadBoxTest, FreshMemoryOfSmallSlices) {
  const std::vector<int64_t> shape = {4, 4};
  const std::string bytes = RandomBytes(&random_, 16);
  BundleBuilder builder;
  builder.AddSliced("t", DataType::kInt8, shape, bytes, {{{0, 2}, {0, 4}}, {{2, 2}, {0, 4}}});
  const auto checkpoint = Open(builder);
  EXPECT_EQ(Read(*checkpoint, "t", WholeBox(shape), {.fresh = true}), bytes);
  EXPECT_TRUE(
      ReadBoxWithChecksums(*checkpoint, checkpoint->catalog().tensors[0], {{1, 0}, {0, 4}}, {}, {})
          .empty());
}

TEST_F(ReadBoxTest, SeveralTensorsAreCompared) {
  const std::string large = RandomBytes(&random_, kReadChunkSize * 3 + 1);
  for (const bool verify : {true, false}) {
    for (const int wrong : {-1, 0, 1, 2}) {
      BundleBuilder builder;
      builder.Add("a", DataType::kInt8, {static_cast<int64_t>(large.size())}, large);
      builder.Add("b", DataType::kInt8, {5}, "small");
      builder.Add("c", DataType::kInt8, {static_cast<int64_t>(large.size())}, large);
      const size_t starts[] = {100, large.size() + 2, large.size() + 5 + 2 * kReadChunkSize};
      if (wrong >= 0) builder.data()[starts[wrong]] ^= 1;
      const auto checkpoint = Open(builder);
      std::vector<std::vector<uint8_t>> outs;
      std::vector<TensorRead> reads;
      for (const Tensor& tensor : checkpoint->catalog().tensors) {
        outs.emplace_back(tensor.num_elements);
        reads.push_back({&tensor, outs.back()});
      }
      const ReadOptions options{.threads = 2, .verify = verify};
      if (wrong >= 0 && verify) {
        EXPECT_THROW(ReadTensors(*checkpoint, reads, options), CorruptionError) << wrong;
      } else {
        ReadTensors(*checkpoint, reads, options);
        const std::string& data = builder.data();
        EXPECT_EQ(std::string(outs[0].begin(), outs[0].end()), data.substr(0, large.size()));
        EXPECT_EQ(std::string(outs[2].begin(), outs[2].end()), data.substr(large.size() + 5));
      }
    }
  }
}

}  // namespace
}  // namespace tensorbundle
