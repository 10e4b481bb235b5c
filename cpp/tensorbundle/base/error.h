// SPDX-License-Identifier: Apache-2.0
// The exceptions of the core, and the escaping of names in messages. The bindings translate each
// exception to the Python class of the same name.
//
// A message names the file, the tensor and the offset, and says what was expected and what was
// found. For wrong arguments the core throws std::out_of_range and std::invalid_argument.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace tensorbundle {

// The base class of all exceptions about a checkpoint.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The checkpoint has no tensor of that name.
class TensorNotFoundError : public Error {
  using Error::Error;
};

// The bytes violate the format, or differ from their checksum.
class CorruptionError : public Error {
  using Error::Error;
};

// A file ends before the bytes that the format says it has.
class TruncatedError : public CorruptionError {
  using CorruptionError::CorruptionError;
};

// Some elements of a tensor are in no stored slice.
class UncoveredError : public CorruptionError {
  using CorruptionError::CorruptionError;
};

// The file is not a valid vocabulary. kind() selects the status code that TensorFlow uses for this
// error.
class VocabularyError : public CorruptionError {
 public:
  enum class Kind { kNoLine, kEmptyLine, kDuplicate };
  VocabularyError(Kind kind, const std::string& message) : CorruptionError(message), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

// The shapes of a tensor and its destination differ.
class ShapeMismatchError : public Error {
  using Error::Error;
};

// The file is valid, but uses a feature that is not supported.
class UnsupportedError : public Error {
  using Error::Error;
};

// There is no such checkpoint, index file or data file.
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

// Throws an IOFailure with errno: "cannot <what> <path>".
[[noreturn]] void ThrowSystemError(const std::string& what, const std::string& path);

// Returns 'name' in quotes, for messages: bytes that are not printable ASCII become \xNN, because a
// name in a file is arbitrary bytes.
std::string EscapeBytes(std::string_view name);

}  // namespace tensorbundle
