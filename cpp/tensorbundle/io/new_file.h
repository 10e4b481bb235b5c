// SPDX-License-Identifier: Apache-2.0
// Files that get their names only when they are whole.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tensorbundle/base/bytes.h"

namespace tensorbundle {

// A file that is written under a temporary name beside its own: that name, ".tempstate" and a
// number, as TensorFlow's writer has it. What was not kept is removed with the object, under
// whichever name it has. Everything here throws IOFailure with the system's error number.
class NewFile {
 public:
  // Nothing is created at `path` itself yet.
  static std::unique_ptr<NewFile> Create(const std::string& path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  const std::string& path() const { return path_; }

  // Makes the file `size` bytes long, all zero, and takes the space for them now where the file
  // system can: a full disk is then known before anything is written.
  void Resize(uint64_t size);

  // Thread-safe.
  void WriteAt(uint64_t offset, ByteSpan bytes) const;

  // Begins to bring what was written to the disk, and waits for nothing: Finish() has less to do.
  void StartWriteback() const;

  // Brings the bytes to the disk and lets go of the descriptor.
  void Finish();

  // Gives a finished file its name. Never replaces another: EEXIST.
  void Publish();

  // Lets the file live on.
  void Keep() { kept_ = true; }

 private:
  // Opens nothing: the object comes first, so that no descriptor is lost when memory runs out.
  explicit NewFile(std::string path) : path_(std::move(path)) {}

  std::string path_;
  std::string temporary_;  // empty: no file has that name
  int descriptor_ = -1;
  bool published_ = false;
  bool kept_ = false;
};

// The directory that a new file goes to. One that was made for it is removed with the object, if it
// was not kept and nothing is in it.
class NewDirectory {
 public:
  // Of the file `path`: made when it is missing, if its own parent is there. Throws IOFailure.
  static std::unique_ptr<NewDirectory> For(const std::string& path);
  ~NewDirectory();
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;

  // Brings the names in it to the disk. Throws IOFailure.
  void Sync() const;
  void Keep() { kept_ = true; }

 private:
  explicit NewDirectory(std::string path) : path_(std::move(path)) {}

  std::string path_;
  bool kept_ = true;
};

}  // namespace tensorbundle
