// SPDX-License-Identifier: Apache-2.0
// The bytes are stored strings or variants. The first byte selects the type, the byte order and the
// number of elements.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/checkpoint.h"
#include "tensorbundle/read/read_strings.h"

namespace tensorbundle {
namespace {

// A data file into which every input is written, because every slice needs a file.
class DataFile {
 public:
  DataFile() : descriptor_(::mkstemp(path_.data())) {
    if (descriptor_ < 0) std::abort();
  }
  ~DataFile() {
    ::close(descriptor_);
    ::unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }

  // The rest of a longer earlier input may follow: a data file may be longer than its slices.
  void Set(const uint8_t* data, size_t size) {
    if (::pwrite(descriptor_, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  }

 private:
  std::string path_ = std::filesystem::temp_directory_path() / "fuzz_strings-XXXXXX";
  int descriptor_;
};

// The catalog of one tensor that takes the whole file. Applies the size check of the index.
bool MakeCatalog(uint8_t choice, size_t size, const std::string& path, Catalog* catalog) {
  const bool is_string = (choice & 1) != 0;
  const int64_t count = choice >> 2;
  const size_t least = is_string ? static_cast<size_t>(count) + 4 : static_cast<size_t>(count) * 5;
  if (size < least) return false;
  Tensor tensor;
  tensor.dtype = is_string ? DataType::kString : DataType::kVariant;
  tensor.rank = 1;
  tensor.num_elements = static_cast<uint64_t>(count);
  tensor.num_slices = 1;
  StoredSlice slice;
  slice.size = size;
  slice.has_checksum = true;
  slice.encoding = is_string ? Encoding::kStrings : Encoding::kVariants;
  catalog->tensors = {tensor};
  catalog->dims = {count};
  catalog->slices = {slice};
  catalog->files = {path};
  catalog->big_endian = (choice & 2) != 0;
  return true;
}

void ReadAll(const Checkpoint& checkpoint, size_t size, bool verify) {
  const Tensor& tensor = checkpoint.catalog().tensors[0];
  try {
    const StringElements elements =
        ReadStrings(checkpoint, tensor, checkpoint.catalog().slices[0], verify);
    if (elements.size() != tensor.num_elements) std::abort();
    size_t total = 0;
    uint8_t sum = 0;
    for (size_t i = 0; i < elements.size(); ++i) {
      for (const char c : elements[i]) sum = static_cast<uint8_t>(sum ^ c);
      total += elements[i].size();
    }
    volatile uint8_t used = sum;
    static_cast<void>(used);
    if (total > size) std::abort();
  } catch (const Error&) {
  }
}

}  // namespace
}  // namespace tensorbundle

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  static DataFile file;
  Catalog catalog;
  if (size == 0 || !MakeCatalog(data[0], size - 1, file.path(), &catalog)) return 0;
  file.Set(data + 1, size - 1);
  const Checkpoint checkpoint(std::move(catalog), 0, IoMode::kPread, nullptr);
  ReadAll(checkpoint, size - 1, false);
  ReadAll(checkpoint, size - 1, true);
  return 0;
}
