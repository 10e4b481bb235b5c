// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/read/verify.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <numeric>
#include <stdexcept>
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

constexpr size_t kLarge = (size_t{9} << 20) + 5;  // more than a small slice, and no whole chunk

class VerifyTest : public ::testing::Test {
 protected:
  VerifyTest() {
    builder_.Add("a", DataType::kInt8, {1000}, std::string(1000, 'a'));
    builder_.Add("large", DataType::kInt8, {kLarge}, std::string(kLarge, 'l'), 1);
    for (int i = 0; i < 50; ++i) {
      builder_.Add("t" + std::to_string(i), DataType::kInt8, {100}, std::string(100, 't'), i % 2);
    }
    builder_.AddSliced("w", DataType::kInt8, {4}, "abcd", {{{0, 2}}, {{2, 2}}});
  }

  std::vector<Corruption> Verify(int threads, uint64_t* bytes = nullptr) {
    builder_.Write(dir_ / "p");
    if (!lost_.empty()) std::filesystem::remove(lost_);
    checkpoint_ = Checkpoint::OpenBundle(dir_ / "p", IoMode::kAuto);
    std::vector<size_t> all(checkpoint_->catalog().tensors.size());
    std::iota(all.begin(), all.end(), size_t{0});
    std::atomic<uint64_t> done{0};
    VerifyResult result = VerifyTensors(*checkpoint_, all, threads, [&](uint64_t n) { done += n; });
    EXPECT_EQ(result.num_bytes, done);
    if (bytes != nullptr) *bytes = done;
    return std::move(result.corruptions);
  }

  std::string NameOf(const Corruption& damage) const {
    return std::string(checkpoint_->catalog().tensors[damage.tensor].name);
  }

  const TempDir dir_;
  BundleBuilder builder_{2};
  std::string lost_;
  std::shared_ptr<const Checkpoint> checkpoint_;
};

TEST_F(VerifyTest, NothingIsDamaged) {
  for (const int threads : {1, 4}) {
    uint64_t bytes = 0;
    EXPECT_TRUE(Verify(threads, &bytes).empty());
    EXPECT_EQ(bytes, 1000 + kLarge + 50 * 100 + 4);
    for (const StoredSlice& slice : checkpoint_->catalog().slices)
      EXPECT_TRUE(checkpoint_->IsVerified(slice));
  }
}

TEST_F(VerifyTest, DamageInFileOrder) {
  builder_.data(1)[kLarge - 1] = 'x';
  builder_.data(1)[kLarge + 150] = 'x';  // of the second small tensor in that file
  builder_.data(0)[500] = 'x';
  for (const int threads : {1, 4}) {
    const std::vector<Corruption> corruptions = Verify(threads);
    ASSERT_EQ(corruptions.size(), 3U);
    EXPECT_EQ(NameOf(corruptions[0]), "a");
    EXPECT_EQ(NameOf(corruptions[1]), "large");
    EXPECT_EQ(NameOf(corruptions[2]), "t3");
    EXPECT_NE(corruptions[1].message.find("tensor 'large'"), std::string::npos)
        << corruptions[1].message;
    EXPECT_FALSE(checkpoint_->IsVerified(*corruptions[1].slice));
  }
}

TEST_F(VerifyTest, AMissingFileDamagesWhatWasInIt) {
  lost_ = DataFilePath(dir_ / "p", 1, 2);
  const std::vector<Corruption> corruptions = Verify(3);
  EXPECT_EQ(corruptions.size(), 1 + 25 + 1U);
  for (const Corruption& damage : corruptions)
    EXPECT_NE(damage.message.find(lost_), std::string::npos);
}

TEST_F(VerifyTest, UnknownTypesAndMissingChecksums) {
  builder_.Put("u", Record{static_cast<DataType>(99), {2}, 0, 0, 8}.Message());
  builder_.Put("v", testing::VarintField(1, 6) + testing::VarintField(5, 1));
  const std::vector<Corruption> corruptions = Verify(2);
  ASSERT_EQ(corruptions.size(), 2U);
  EXPECT_NE((corruptions[0].message + corruptions[1].message).find("DT_99"), std::string::npos);
  EXPECT_NE((corruptions[0].message + corruptions[1].message).find("no checksum"),
            std::string::npos);
}

TEST_F(VerifyTest, ProgressMayStopIt) {
  Verify(1);
  std::vector<size_t> all(checkpoint_->catalog().tensors.size());
  std::iota(all.begin(), all.end(), size_t{0});
  for (const int threads : {1, 4}) {
    EXPECT_THROW(VerifyTensors(*checkpoint_, all, threads,
                               [](uint64_t) { throw std::domain_error("enough"); }),
                 std::domain_error);
  }
}

TEST_F(VerifyTest, SomeTensorsOrNone) {
  Verify(1);
  EXPECT_TRUE(
      VerifyTensors(*checkpoint_, {}, 4, [](uint64_t) { ADD_FAILURE(); }).corruptions.empty());
  const std::vector<size_t> one = {checkpoint_->catalog().Find("a")};
  std::atomic<uint64_t> bytes{0};
  EXPECT_TRUE(
      VerifyTensors(*checkpoint_, one, 4, [&](uint64_t n) { bytes += n; }).corruptions.empty());
  EXPECT_EQ(bytes.load(), 1000U);
}

}  // namespace
}  // namespace tensorbundle
