// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/status.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>
#include <string_view>
#include <system_error>

#include "tensorbundle/base/error.h"

namespace tensorbundle::op {
namespace {

// The codes that TensorFlow's vocabulary reader uses.
Code CodeOf(VocabularyError::Kind kind) {
  switch (kind) {
    case VocabularyError::Kind::kNoLine:
      return Code::kOutOfRange;
    case VocabularyError::Kind::kEmptyLine:
      return Code::kInvalidArgument;
    case VocabularyError::Kind::kDuplicate:
      return Code::kFailedPrecondition;
  }
  return Code::kInternal;
}

// Never UNAVAILABLE: MonitoredSession treats it as a lost machine and retries forever.
Code CodeOfErrno(int number) {
  switch (number) {
    case EACCES:
    case EPERM:
      return Code::kPermissionDenied;
    case EISDIR:
      return Code::kFailedPrecondition;
    case EINVAL:  // also: not a regular file
    case ELOOP:
    case ENAMETOOLONG:
      return Code::kInvalidArgument;
    case ENODEV:
    case ENXIO:
      return Code::kNotFound;
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return Code::kResourceExhausted;
    default:
      return Code::kInternal;
  }
}

// gRPC sends a status in headers, which are limited to 8 KiB.
constexpr size_t kMaxMessage = 4096;

// Returns the size of the UTF-8 character (RFC 3629) at the beginning of `text`, or 0 if there is
// no valid one.
size_t Utf8Size(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return first == 0 ? 0 : 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  const bool is_overlong = (first == 0xe0 && at(1) < 0xa0) || (first == 0xf0 && at(1) < 0x90);
  const bool is_outside = (first == 0xed && at(1) > 0x9f) || (first == 0xf4 && at(1) > 0x8f);
  return is_overlong || is_outside ? 0 : size;
}

std::string ToUtf8(std::string_view message) {
  std::string text;
  while (!message.empty()) {
    if (text.size() > kMaxMessage) return text + "...";
    const size_t size = Utf8Size(message);
    if (size > 0) {
      text += message.substr(0, size);
    } else {
      char escaped[5];
      std::snprintf(escaped, sizeof(escaped), "\\x%02x", static_cast<unsigned char>(message[0]));
      text += escaped;
    }
    message.remove_prefix(size > 0 ? size : 1);
  }
  return text;
}

Failure Translate() {
  try {
    throw;
  } catch (const OpError& error) {
    return {error.code(), error.message()};
  } catch (const VocabularyError& error) {
    return {CodeOf(error.kind()), error.what()};
  } catch (const TensorNotFoundError& error) {
    return {Code::kNotFound, error.what()};
  } catch (const CheckpointNotFoundError& error) {
    return {Code::kNotFound, error.what()};
  } catch (const CorruptionError& error) {
    return {Code::kDataLoss, error.what()};
  } catch (const ShapeMismatchError& error) {
    return {Code::kInvalidArgument, error.what()};
  } catch (const UnsupportedError& error) {
    return {Code::kUnimplemented, error.what()};
  } catch (const IOFailure& error) {
    const int number = error.error_number();
    return {CodeOfErrno(number), std::string(error.what()) + ": " + std::strerror(number)};
  } catch (const std::invalid_argument& error) {
    return {Code::kInvalidArgument, error.what()};
  } catch (const std::out_of_range& error) {
    return {Code::kInvalidArgument, error.what()};
  } catch (const std::length_error& error) {
    return {Code::kResourceExhausted, error.what()};
  } catch (const std::system_error& error) {
    return {CodeOfErrno(error.code().value()), error.what()};
  } catch (const std::bad_alloc&) {
    return {Code::kResourceExhausted, "out of memory"};
  } catch (const std::exception& error) {
    return {Code::kInternal, error.what()};
  }
}

}  // namespace

Failure CurrentFailure() {
  try {
    Failure failure = Translate();
    failure.message = ToUtf8(failure.message);
    return failure;
  } catch (const std::bad_alloc&) {                      // thrown by the message's allocation
    return {Code::kResourceExhausted, "out of memory"};  // short strings need no allocation
  }
}

Failure CurrentStockFailure() {
  Failure failure = CurrentFailure();
  try {
    throw;
  } catch (const TruncatedError&) {
    failure.code = Code::kOutOfRange;
  } catch (const UncoveredError&) {
    failure.code = Code::kInvalidArgument;
  } catch (const IOFailure& error) {
    if (error.error_number() == ELOOP) failure.code = Code::kUnknown;
  } catch (...) {
  }
  return failure;
}

}  // namespace tensorbundle::op
