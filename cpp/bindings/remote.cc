// SPDX-License-Identifier: Apache-2.0
#include "bindings/remote.h"

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "tensorbundle/base/error.h"

namespace tensorbundle {
namespace {

// A Python object that any thread may release, also one without the GIL, and also after the
// interpreter has ended, when it is leaked.
std::shared_ptr<const py::object> Shared(py::object object) {
  return {new py::object(std::move(object)), [](const py::object* held) {
            if (Py_IsInitialized() == 0) return;
            const GilAcquired acquired;
            delete held;
          }};
}

std::string MessageOf(const py::error_already_set& error) {
  return py::str(error.value()).cast<std::string>();
}

int ErrorNumberOf(const py::error_already_set& error) {
  const py::object number = py::getattr(error.value(), "errno", py::none());
  return PyLong_Check(number.ptr()) ? number.cast<int>() : EIO;
}

// Throws a Python exception as one of the core's, which adds the tensor's name, or collects it in a
// report. To be called with the GIL.
[[noreturn]] void Rethrow(const py::error_already_set& error, const std::string& path) {
  const py::module_ errors = py::module_::import("tensorbundle.errors");
  if (error.matches(errors.attr("CorruptionError"))) throw CorruptionError(MessageOf(error));
  if (error.matches(errors.attr("UnsupportedError"))) throw UnsupportedError(MessageOf(error));
  if (error.matches(PyExc_FileNotFoundError)) {
    throw CheckpointNotFoundError(MessageOf(error), path);
  }
  if (error.matches(errors.attr("IOFailure"))) {
    // Without the text of the error number, which is appended again.
    const std::string message = py::str(error.value().attr("_message")).cast<std::string>();
    throw IOFailure(message, path, ErrorNumberOf(error));
  }
  throw error;
}

class PythonReader final : public RequestReader {
 public:
  PythonReader(std::string path, std::shared_ptr<const py::object> read)
      : path_(std::move(path)), read_(std::move(read)) {}

  void Read(uint64_t offset, MutableByteSpan out) const override {
    const GilAcquired acquired;
    try {
      const py::memoryview view = py::memoryview::from_memory(static_cast<void*>(out.data()),
                                                              static_cast<py::ssize_t>(out.size()));
      const py::int_ start(offset);
      PyObject* const arguments[] = {start.ptr(), view.ptr()};
      Steal(CallPython([&] { return PyObject_Vectorcall(read_->ptr(), arguments, 2, nullptr); }));
      view.attr("release")();  // the memory may not be used after the call
    } catch (const py::error_already_set& error) {
      Rethrow(error, path_);
    }
  }

 private:
  const std::string path_;
  const std::shared_ptr<const py::object> read_;
};

}  // namespace

FileOpener OpenerOf(py::object open) {
  return [open = Shared(std::move(open))](const std::string& path, ReadMode) {
    const GilAcquired acquired;
    try {
      const py::str url = PathOf(path);
      const auto opened = Steal(CallPython([&] {
                            return PyObject_CallOneArg(open->ptr(), url.ptr());
                          })).cast<py::tuple>();
      const auto size = opened[0].cast<uint64_t>();
      auto reader = std::make_unique<const PythonReader>(path, Shared(opened[1]));
      return File::OfRequests(path, size, std::move(reader));
    } catch (const py::error_already_set& error) {
      Rethrow(error, path);
    }
  };
}

}  // namespace tensorbundle
