// SPDX-License-Identifier: Apache-2.0
// Opens V1 checkpoints in tests, and reads them back whole.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensorbundle/base/error.h"
#include "tensorbundle/v1/v1_checkpoint.h"
#include "v1_builder.h"

namespace tensorbundle::testing {

class V1Test : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = test->name();
    std::replace(name.begin(), name.end(), '/', '_');  // what sets the parameter apart
    folder_ = std::filesystem::temp_directory_path() /
              ("v1_test_" + std::to_string(getpid()) + "_" + name);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& bytes, const std::string& name = "ckpt") const {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return path;
  }
  std::shared_ptr<const Checkpoint> Open(const std::string& bytes) const {
    return OpenV1({Write(bytes)}, IoMode::kAuto);
  }

  std::filesystem::path folder_;
};

// Returns the dense bytes of a slice of any encoding. Checks that both ways to read it agree.
inline std::string Elements(const Checkpoint& checkpoint, const Tensor& tensor,
                            const StoredSlice& slice) {
  const std::vector<uint8_t> decoded = checkpoint.records()->DecodeDense(tensor, slice);
  if (slice.encoding == Encoding::kDense) {
    checkpoint.records()->Verify(tensor, slice);
    checkpoint.CheckSlice(tensor, slice, Compared::kNo);
    std::vector<uint8_t> in_place(slice.size);
    checkpoint.files().Get(slice.file).ReadAt(slice.offset, in_place);
    EXPECT_EQ(in_place, decoded) << tensor.name;
  }
  return {decoded.begin(), decoded.end()};
}

inline std::string Elements(const Checkpoint& checkpoint, const std::string& name) {
  const Tensor& tensor = Find(checkpoint, name);
  EXPECT_EQ(tensor.num_slices, 1u);
  return Elements(checkpoint, tensor, checkpoint.catalog().Slices(tensor)[0]);
}

// Reads and verifies everything. Returns a text that differs if anything in the checkpoint differs.
inline std::string ReadAll(const Checkpoint& checkpoint) {
  std::string all;
  for (const Tensor& tensor : checkpoint.catalog().tensors) {
    all += std::string(tensor.name) + ShapeToString(checkpoint.catalog().Shape(tensor)) +
           DataTypeName(tensor.dtype);
    for (const StoredSlice& slice : checkpoint.catalog().Slices(tensor)) {
      checkpoint.records()->Verify(tensor, slice);
      all += ToString(checkpoint.catalog().BoxOf(tensor, slice));
      if (tensor.dtype == DataType::kString) {
        for (const std::string& text : checkpoint.records()->DecodeStrings(tensor, slice))
          all += text + '\n';
      } else {
        all += Elements(checkpoint, tensor, slice);
      }
    }
  }
  return all;
}

inline std::string MessageOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const CorruptionError& error) {
    return error.what();
  }
  return "(no CorruptionError)";
}

// Tensors of several kinds, in several blocks.
inline V1Writer Mixture() {
  V1Writer writer;
  const Box left = {kAll, {0, 1}}, right = {kAll, {1, 2}};
  writer.List("cut", DataType::kFloat, {2, 3}, {left, right});
  writer.Store("cut", left, Floats({1, 2}));
  writer.Store("cut", right, Floats({3, 4, 5, 6}));
  writer.Add("ints", DataType::kInt32, {3}, Varints(7, {-1, 300, 5}));
  writer.Add("cut/long name", DataType::kHalf, {2}, Varints(13, {0xbc00, 1}));
  writer.Add("text", DataType::kString, {2}, BytesField(8, "ab") + BytesField(8, ""));
  writer.Add("z", DataType::kComplex64, {}, BytesField(9, Raw<float>({1, 2})));
  return writer;
}

}  // namespace tensorbundle::testing
