// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/prefetch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bundle_builder.h"
#include "forked_child.h"
#include "random_boxes.h"
#include "temp_dir.h"
#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

using std::chrono::milliseconds;
using testing::BundleBuilder;
using testing::Random;
using testing::TempDir;

constexpr int64_t kRows = 500;
constexpr int64_t kColumns = 40;

class PrefetchTest : public ::testing::Test {
 protected:
  PrefetchTest() {
    for (int64_t i = 0; i < kRows * kColumns; ++i) bytes_ += static_cast<char>(random_());
    BundleBuilder builder(2);
    builder.AddSliced("t", DataType::kInt8, {kRows, kColumns}, bytes_,
                      {{{0, 200}, {0, 15}}, {{0, 200}, {15, 25}}, {{200, 300}, {0, 40}}});
    builder.Add("u", DataType::kInt8, {3}, "abc");
    builder.Write(dir_ / "p");
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
  }

  PrefetchOptions OptionsFor(int64_t rows, uint64_t ahead = 2) const {
    PrefetchOptions options;
    options.tensors = {checkpoint_->catalog().Find("t")};
    options.rows = rows;
    options.max_ahead = ahead * static_cast<uint64_t>(rows * kColumns);
    options.threads = 2;
    return options;
  }

  static bool Next(Prefetcher* stream, StreamItem* item) {
    Prefetcher::Status status = Prefetcher::Status::kWaiting;
    while (status == Prefetcher::Status::kWaiting) status = stream->Next(milliseconds(5), item);
    return status == Prefetcher::Status::kReady;
  }

  std::string Expected(const StreamItem& item) const {
    return bytes_.substr(static_cast<size_t>(item.first_row * kColumns),
                         static_cast<size_t>(item.num_rows * kColumns));
  }

  static std::string Actual(const StreamItem& item) {
    return {reinterpret_cast<const char*>(item.buffer->data()),
            static_cast<size_t>(item.num_rows * kColumns)};
  }

  const TempDir dir_;
  Random random_{7};
  std::string bytes_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_F(PrefetchTest, ReusesMemoryThatTheConsumerReleases) {
  for (const uint64_t ahead : {1, 2, 5}) {
    Prefetcher stream(checkpoint_, OptionsFor(10, ahead));
    std::set<const uint8_t*> places;
    int64_t rows = 0;
    for (StreamItem item; Next(&stream, &item);) {
      EXPECT_EQ(item.first_row, rows);
      EXPECT_EQ(Actual(item), Expected(item));
      places.insert(item.buffer->data());
      rows += item.num_rows;
    }
    EXPECT_EQ(rows, kRows);
    EXPECT_LE(places.size(), ahead + 1);
  }
}

TEST_F(PrefetchTest, KeepsArraysOfTheConsumer) {
  std::vector<StreamItem> kept;
  {
    Prefetcher stream(checkpoint_, OptionsFor(7));
    for (StreamItem item; Next(&stream, &item);) {
      if (random_() % 2 == 0) kept.push_back(std::move(item));
    }
  }
  checkpoint_.reset();
  for (const StreamItem& item : kept) EXPECT_EQ(Actual(item), Expected(item));
}

TEST_F(PrefetchTest, FillsDestinationsInTurnAfterTheNextCall) {
  for (const size_t count : {1, 2, 3}) {
    PrefetchOptions options = OptionsFor(9);
    std::vector<std::vector<uint8_t>> outs(count, std::vector<uint8_t>(9 * kColumns));
    for (std::vector<uint8_t>& out : outs) options.destinations.emplace_back(out);
    Prefetcher stream(checkpoint_, options);
    size_t turn = 0;
    for (StreamItem item; Next(&stream, &item); ++turn) {
      EXPECT_EQ(item.destination, turn % count);
      if (turn % 10 == 0) std::this_thread::sleep_for(milliseconds(1));
      const std::vector<uint8_t>& out = outs[item.destination];
      const std::string found(out.begin(), out.begin() + item.num_rows * kColumns);
      ASSERT_EQ(found, Expected(item));
    }
    EXPECT_EQ(turn, 56u);
  }
}

TEST_F(PrefetchTest, SupportsManyConsumers) {
  Prefetcher stream(checkpoint_, OptionsFor(3));
  std::mutex mutex;
  std::map<int64_t, std::string> found;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (StreamItem item; Next(&stream, &item);) {
        const std::lock_guard lock(mutex);
        found[item.first_row] = Actual(item);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::string all;
  for (const auto& [row, part] : found) all += part;
  EXPECT_EQ(all, bytes_);
}

TEST_F(PrefetchTest, StopsAtAnyPoint) {
  for (int items = 0; items < 30; ++items) {
    StreamItem kept;
    Prefetcher stream(checkpoint_, OptionsFor(20));
    for (int i = 0; i < items; ++i) Next(&stream, &kept);
    if (items % 2 == 0) stream.Stop();
    StreamItem after;
    if (items % 2 == 0) {
      EXPECT_FALSE(Next(&stream, &after));
    }
  }
}

TEST_F(PrefetchTest, StopWakesTheConsumer) {
  PrefetchOptions options = OptionsFor(10);
  Prefetcher stream(checkpoint_, options);
  std::thread consumer([&] {
    for (StreamItem item; Next(&stream, &item);) std::this_thread::sleep_for(milliseconds(1));
  });
  std::this_thread::sleep_for(milliseconds(5));
  stream.Stop();
  consumer.join();
}

TEST_F(PrefetchTest, DeliversNothingAfterACorruptBatch) {
  BundleBuilder builder;
  builder.Add("t", DataType::kInt8, {kRows, kColumns}, bytes_);
  builder.data()[99 * kColumns] ^= 1;
  builder.Write(dir_ / "q");
  // In one tick of the clock with its index, the file would be compared before it is read.
  std::this_thread::sleep_for(milliseconds(30));
  std::filesystem::rename(dir_ / "q.index", dir_ / "moved");
  std::filesystem::rename(dir_ / "moved", dir_ / "q.index");
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "q", IoMode::kAuto);
  for (const uint64_t ahead : {1, 2, 5}) {
    Prefetcher stream(checkpoint_, OptionsFor(10, ahead));
    int64_t rows = 0;
    StreamItem item;
    EXPECT_THROW(while (Next(&stream, &item)) { rows += item.num_rows; }, CorruptionError);
    EXPECT_EQ(rows, kRows - 10);
    EXPECT_FALSE(Next(&stream, &item));
  }
}

TEST_F(PrefetchTest, AnErrorReplacesItsTensorOnly) {
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 1, 2), 10);
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kPread);
  PrefetchOptions options;
  options.tensors = {checkpoint_->catalog().Find("t"), checkpoint_->catalog().Find("u")};
  options.max_ahead = 1 << 20;
  Prefetcher stream(checkpoint_, options);
  StreamItem item;
  EXPECT_THROW(Next(&stream, &item), CorruptionError);
  EXPECT_TRUE(Next(&stream, &item));
  EXPECT_EQ(item.tensor, options.tensors[1]);
  EXPECT_FALSE(Next(&stream, &item));
}

// Whole tensors, in the order of the files; elements without a fixed size are left to the consumer.
TEST_F(PrefetchTest, WholeTensors) {
  BundleBuilder builder(2, /*big_endian=*/true);
  builder.Add("b", DataType::kInt16, {}, "hg", 1);
  builder.Add("a", DataType::kInt16, {3}, "badcfe", 1);
  builder.Add("c", DataType::kInt16, {0, 2}, "", 0);
  builder.Add("d", DataType::kInt8, {2, 3}, "ijklmn", 0);
  builder.Add("e", DataType::kString, {0}, "\xd8\xea\x82\xa2", 0);
  builder.Write(dir_ / "w");
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "w", IoMode::kAuto);
  PrefetchOptions options;
  options.tensors = InFileOrder(checkpoint_->catalog(), {0, 1, 2, 3, 4});
  const auto name = [&](size_t tensor) {
    return std::string(checkpoint_->catalog().tensors[tensor].name);
  };
  for (const bool verify : {false, true}) {
    options.verify = verify;
    Prefetcher stream(checkpoint_, options);
    std::map<std::string, std::string> found;
    std::string order;
    for (StreamItem item; Next(&stream, &item);) {
      order += name(item.tensor);
      std::string& bytes = found[name(item.tensor)];
      const Tensor& tensor = checkpoint_->catalog().tensors[item.tensor];
      EXPECT_EQ(item.has_bytes, name(item.tensor) != "e");
      if (!item.has_bytes || tensor.num_elements == 0) continue;
      const uint64_t size = tensor.num_elements * (tensor.dtype == DataType::kInt8 ? 1 : 2);
      bytes.assign(reinterpret_cast<const char*>(item.buffer->data()), size);
    }
    EXPECT_EQ(found, (std::map<std::string, std::string>{
                         {"a", "abcdef"}, {"b", "gh"}, {"c", ""}, {"d", "ijklmn"}, {"e", ""}}));
    EXPECT_EQ(order, "bacde");
  }
}

// Errors while a stream runs name the slice.
TEST_F(PrefetchTest, NamesTheSliceThatCannotBeRead) {
  Prefetcher stream(checkpoint_, OptionsFor(10));
  StreamItem item;
  std::filesystem::resize_file(DataFilePath(dir_ / "p", 0, 2), 0);
  try {
    while (Next(&stream, &item)) {
    }
    FAIL() << "read an empty file";
  } catch (const CorruptionError& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("tensor 't', slice [")) << error.what();
  }
}

// A forked child has no thread that reads: its stream fails, and nothing waits for the thread.
TEST_F(PrefetchTest, EndsInAForkedChild) {
  auto stream = std::make_unique<Prefetcher>(checkpoint_, OptionsFor(10));
  StreamItem item;
  ASSERT_TRUE(Next(stream.get(), &item));
  EXPECT_EQ(testing::RunInForkedChild([&] {
              bool thrown = false;
              StreamItem other;
              try {
                stream->Next(milliseconds(5), &other);
              } catch (const std::runtime_error&) {
                thrown = true;
              }
              stream->Stop();
              item.buffer.reset();
              stream.reset();
              return thrown;
            }),
            0);
  EXPECT_EQ(Actual(item), Expected(item));
  EXPECT_TRUE(Next(stream.get(), &item));
}

// Buffers that are released after the end, or after the stream, are freed.
TEST_F(PrefetchTest, BuffersMayOutliveTheStream) {
  std::vector<StreamItem> kept(3);
  {
    Prefetcher stream(checkpoint_, OptionsFor(kRows));
    ASSERT_TRUE(Next(&stream, &kept[0]));
    StreamItem end;
    ASSERT_FALSE(Next(&stream, &end));
    EXPECT_EQ(Actual(kept[0]), bytes_);
    kept[0].buffer.reset();
  }
  {
    Prefetcher stream(checkpoint_, OptionsFor(10));
    ASSERT_TRUE(Next(&stream, &kept[1]));
  }
  EXPECT_EQ(Actual(kept[1]), Expected(kept[1]));
}

// A long stream of a file that is not in the page cache, which uses direct I/O where it can.
TEST_F(PrefetchTest, LongStreams) {
  constexpr int64_t kLongRows = 65 << 10;
  std::string bytes(kLongRows << 10, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 24);
  BundleBuilder builder;
  builder.data() = "odd";
  builder.Add("t", DataType::kInt8, {kLongRows, 1024}, bytes);
  builder.Write(dir_ / "long");
  checkpoint_ = Checkpoint::OpenBundle(dir_ / "long", IoMode::kAuto);
  for (const int threads : {1, 3}) {
    const int descriptor = checkpoint_->files().Get(0).descriptor();
    ::fdatasync(descriptor);
    ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    PrefetchOptions options;
    options.tensors = {0};
    options.rows = 8000;
    options.max_ahead = 32 << 20;
    options.threads = threads;
    Prefetcher stream(checkpoint_, options);
    int64_t rows = 0;
    for (StreamItem item; Next(&stream, &item); rows += item.num_rows) {
      ASSERT_EQ(item.first_row, rows);
      ASSERT_EQ(std::memcmp(item.buffer->data(), bytes.data() + (rows << 10),
                            static_cast<size_t>(item.num_rows) << 10),
                0);
    }
    EXPECT_EQ(rows, kLongRows);
  }
}

TEST_F(PrefetchTest, BuffersCanBeMoved) {
  Prefetcher stream(checkpoint_, OptionsFor(10));
  StreamItem item;
  ASSERT_TRUE(Next(&stream, &item));
  {
    const PooledBuffer moved(std::move(*item.buffer));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(moved.data()), 10 * kColumns),
              Expected(item));
    item.buffer.reset();  // releases nothing
  }
  EXPECT_TRUE(Next(&stream, &item));
  stream.Stop();
  EXPECT_EQ(stream.Next(milliseconds(5), &item), Prefetcher::Status::kEnd);
}

}  // namespace
}  // namespace tensorbundle
