// SPDX-License-Identifier: Apache-2.0
// The exceptions of the core. The bindings turn each into the Python class of the same name.
//
// A message says which file, which tensor, at which offset, what was expected and what was found.
// Misuse by the caller (an index out of bounds, a bad argument) is std::out_of_range or
// std::invalid_argument.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace tensorbundle {

// Root of everything the core throws about a checkpoint.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The checkpoint holds no tensor of that name.
class TensorNotFoundError : public Error {
  using Error::Error;
};

// The bytes contradict the format, or their checksum.
class CorruptionError : public Error {
  using Error::Error;
};

// A vocabulary file that is none. Who speaks to TensorFlow tells the kinds apart, as it does.
class VocabularyError : public CorruptionError {
 public:
  enum class Kind { kNoLine, kEmptyLine, kDuplicate };
  VocabularyError(Kind kind, const std::string& message) : CorruptionError(message), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

// A tensor and its destination differ in shape.
class ShapeMismatchError : public Error {
  using Error::Error;
};

// A valid file that uses something we do not read.
class UnsupportedError : public Error {
  using Error::Error;
};

// No such checkpoint, index file or data shard.
class CheckpointNotFoundError : public Error {
 public:
  CheckpointNotFoundError(const std::string& message, std::string path)
      : Error(message), path_(std::move(path)) {}
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The operating system failed a read or a write.
class IOFailure : public Error {
 public:
  IOFailure(const std::string& message, std::string path, int error_number)
      : Error(message), path_(std::move(path)), error_number_(error_number) {}
  const std::string& path() const { return path_; }
  int error_number() const { return error_number_; }

 private:
  std::string path_;
  int error_number_;
};

}  // namespace tensorbundle
