// SPDX-License-Identifier: Apache-2.0
// The files that hold a checkpoint's pieces, open and mapped once each.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "tensorbundle/bundle/catalog.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/io/mapping.h"

namespace tensorbundle {

// How data are read. kAuto maps for views and reads for copies.
enum class IoMode {
  kAuto,
  kMmap,
  kPread,   // never maps: nothing can ever be more than an exception
  kDirect,  // never maps, and reads past the page cache
};

// Immutable and thread-safe. A file that cannot be opened or mapped fails those who ask for it, and
// nobody else.
class DataFiles {
 public:
  DataFiles(const std::vector<std::string>& paths, IoMode mode);

  // Opens only the files that are marked; asking for another one is std::out_of_range.
  DataFiles(const std::vector<std::string>& paths, IoMode mode, const std::vector<bool>& wanted);

  // Throws why the file could not be opened.
  const File& Get(uint32_t file) const;

  // The whole file as memory, or null when the mode never maps. Throws as Get, CorruptionError when
  // the file has shrunk, and IOFailure when the system refused the mapping.
  std::shared_ptr<const Mapping> Map(uint32_t file) const;

 private:
  struct Entry {
    std::shared_ptr<const File> file;
    std::shared_ptr<const Mapping> mapping;
    std::exception_ptr open_error;
    std::exception_ptr map_error;
  };
  static Entry OpenOne(const std::string& path, IoMode mode);

  std::vector<Entry> entries_;
};

}  // namespace tensorbundle
