// SPDX-License-Identifier: Apache-2.0
#include "tensorbundle/bundle/data_files.h"

#include <stdexcept>

#include "tensorbundle/base/error.h"

namespace tensorbundle {

DataFiles::DataFiles(const std::vector<std::string>& paths, IoMode mode)
    : DataFiles(paths, mode, std::vector<bool>(paths.size(), true)) {}

DataFiles::DataFiles(const std::vector<std::string>& paths, IoMode mode,
                     const std::vector<bool>& wanted)
    : entries_(paths.size()) {
  for (size_t file = 0; file < paths.size(); ++file) {
    if (wanted[file]) entries_[file] = OpenOne(paths[file], mode);
  }
}

DataFiles::Entry DataFiles::OpenOne(const std::string& path, IoMode mode) {
  Entry entry;
  try {
    entry.file =
        File::Open(path, mode == IoMode::kDirect ? ReadMode::kDirect : ReadMode::kBuffered);
  } catch (const CheckpointNotFoundError&) {
    entry.open_error = std::make_exception_ptr(CheckpointNotFoundError(
        "the data shard " + path + " is missing; was the checkpoint copied in part?", path));
    return entry;
  } catch (const Error&) {
    entry.open_error = std::current_exception();
    return entry;
  }
  if (mode == IoMode::kPread || mode == IoMode::kDirect) return entry;
  try {
    entry.mapping = Mapping::OfFile(*entry.file);
  } catch (const IOFailure&) {
    entry.map_error = std::current_exception();  // copies still work
  }
  return entry;
}

const File& DataFiles::Get(uint32_t file) const {
  const Entry& entry = entries_.at(file);
  if (entry.open_error) std::rethrow_exception(entry.open_error);
  if (entry.file == nullptr) {
    throw std::out_of_range("data file " + std::to_string(file) + " was not asked for at open");
  }
  return *entry.file;
}

std::shared_ptr<const Mapping> DataFiles::Map(uint32_t file) const {
  const File& opened = Get(file);
  const Entry& entry = entries_[file];
  if (entry.map_error) std::rethrow_exception(entry.map_error);
  if (entry.mapping != nullptr) opened.CheckNotShrunk();
  return entry.mapping;
}

}  // namespace tensorbundle
