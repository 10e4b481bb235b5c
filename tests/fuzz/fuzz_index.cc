// SPDX-License-Identifier: Apache-2.0
// The bytes are the index of a V2 checkpoint: a file, or its data block, plain or as Snappy. The
// first byte selects which. Checksums are corrected, because mutations would never pass them
// otherwise; a mutator of our own changes the records inside their blocks.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "catalog_checks.h"
#include "fuzz_input.h"
#include "table_builder.h"
#include "table_mutator.h"
#include "tensorbundle/base/error.h"
#include "tensorbundle/bundle/index_reader.h"
#include "tensorbundle/table/format.h"

namespace tensorbundle::fuzz {
namespace {

// A table whose one data block is the bytes.
std::string AroundBlock(std::string_view block, char type) {
  testing::BlockBuilder index(1);
  std::string handle;
  testing::AppendVarint(0, &handle);
  testing::AppendVarint(block.size(), &handle);
  index.Add("\xff\xff\xff\xff", handle);
  const std::string metaindex = testing::BlockBuilder(1).Finish();
  const std::string index_block = index.Finish();
  std::string file(block);
  file += type + std::string(4, '\0') + metaindex + std::string(5, '\0') + index_block +
          std::string(5, '\0');
  std::string footer;
  testing::AppendVarint(block.size() + kTrailerSize, &footer);
  testing::AppendVarint(metaindex.size(), &footer);
  testing::AppendVarint(block.size() + metaindex.size() + 2 * kTrailerSize, &footer);
  testing::AppendVarint(index_block.size(), &footer);
  footer.resize(kFooterSize);
  return WithChecksums(file + footer);
}

std::string MakeFile(uint8_t kind, std::string_view rest) {
  return IsFile(kind) ? WithChecksums(std::string(rest)) : AroundBlock(rest, kind % 4 == 1 ? 0 : 1);
}

}  // namespace
}  // namespace tensorbundle::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tensorbundle;
  if (size == 0) return 0;
  fuzz::CheckIndex(fuzz::MakeFile(data[0], AsText({data + 1, size - 1})));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return tensorbundle::fuzz::MutateInput(data, size, max_size, seed);
}
