// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <string>
#include <utility>

#include "bindings/pybind.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/join.h"
#include "tensorbundle/vocab/line_stream.h"
#include "tensorbundle/vocab/vocabulary.h"

namespace tensorbundle {
namespace {

// (ids, number of ids that are not -1). The array is read-only and owns the ids.
py::tuple ToTuple(JoinResult result) {
  const uint64_t num_present = result.num_present;
  auto held = std::make_unique<JoinResult>(std::move(result));
  const std::span<const int64_t> ids = held->ids();
  const py::capsule base(held.get(), [](void* p) { delete static_cast<JoinResult*>(p); });
  held.release();  // now held by `base`
  py::array_t<int64_t> array(static_cast<py::ssize_t>(ids.size()), ids.data(), base);
  array.attr("setflags")("write"_a = false);
  return py::make_tuple(array, num_present);
}

// A vocabulary as it was named: a file that has not been read, or tokens.
struct Source : HeldByPython {
  std::shared_ptr<const File> file;
  std::shared_ptr<const Vocabulary> tokens;

  std::shared_ptr<const Vocabulary> Read(int threads) const {
    return file ? Vocabulary::OfFile(*file, threads) : tokens;
  }
};

std::shared_ptr<Source> OfFile(const std::string& path) {
  const GilReleased released;
  auto source = std::make_shared<Source>();
  source->file = File::Open(path);
  return source;
}

std::shared_ptr<Source> OfTokens(const std::string& name, const py::bytes& text,
                                 const py::array_t<uint64_t>& offsets) {
  auto source = std::make_shared<Source>();
  source->tokens = Vocabulary::OfTokens(name, AsBytes(static_cast<std::string_view>(text)),
                                        {offsets.data(), static_cast<size_t>(offsets.size())});
  return source;
}

JoinResult JoinSources(const Source& new_vocabulary, const Source& old_vocabulary,
                       const JoinOptions& options) {
  if (!new_vocabulary.file) {
    return Join(*new_vocabulary.tokens, *old_vocabulary.Read(options.threads), options);
  }
  if (old_vocabulary.file) return JoinFiles(new_vocabulary.file, old_vocabulary.file, options);
  const LineStream new_lines(new_vocabulary.file, options.threads);
  return Join(new_lines, *old_vocabulary.tokens, options);
}

py::tuple JoinVocabularies(const Source& new_vocabulary, const Source& old_vocabulary,
                           int64_t old_size, int threads) {
  JoinOptions options;
  options.old_size = old_size;
  options.threads = threads;
  return ToTuple([&] {
    const GilReleased released;
    return JoinSources(new_vocabulary, old_vocabulary, options);
  }());
}

}  // namespace

void RegisterVocabulary(py::module_& module) {
  py::class_<Source, std::shared_ptr<Source>>(module, "Vocabulary", py::is_final(), MadeByCore())
      .def_static("of_file", &OfFile)
      .def_static("of_tokens", &OfTokens);
  module.def("join", &JoinVocabularies);
}

}  // namespace tensorbundle
