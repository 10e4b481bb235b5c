// SPDX-License-Identifier: Apache-2.0
#include "tensorflow_op/failure.h"

#include <cerrno>
#include <cstring>
#include <new>

#include "tensorbundle/base/error.h"

namespace tensorbundle::op {
namespace {

// As TensorFlow's own reader of vocabularies reports them.
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

// Never UNAVAILABLE: a monitored session takes that for a lost machine and tries again forever.
Code CodeOfErrno(int number) {
  switch (number) {
    case EACCES:
    case EPERM:
      return Code::kPermissionDenied;
    case EISDIR:
      return Code::kFailedPrecondition;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return Code::kResourceExhausted;
    default:
      return Code::kInternal;
  }
}

}  // namespace

Failure CurrentFailure() {
  try {
    throw;
  } catch (const OpError& error) {
    return {error.code(), error.what()};
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
    return {Code::kInternal, error.what()};  // as TensorFlow reports extents outside a tensor
  } catch (const std::bad_alloc&) {
    return {Code::kResourceExhausted, "out of memory"};
  } catch (const std::exception& error) {
    return {Code::kInternal, error.what()};
  }
}

}  // namespace tensorbundle::op
