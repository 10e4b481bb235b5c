// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <string>
#include <utility>

#include "bindings/pybind.h"
#include "tensorbundle/io/file.h"
#include "tensorbundle/vocab/join.h"
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

std::shared_ptr<const Vocabulary> FromFile(const std::string& path, int threads) {
  const py::gil_scoped_release release;
  return Vocabulary::OfFile(*File::Open(path), threads);
}

std::shared_ptr<const Vocabulary> FromTokens(const std::string& name, const py::bytes& text,
                                             const py::array_t<uint64_t>& offsets) {
  const auto bytes = static_cast<std::string_view>(text);
  return Vocabulary::OfTokens(name, AsBytes(bytes),
                              {offsets.data(), static_cast<size_t>(offsets.size())});
}

py::tuple JoinVocabularies(const Vocabulary& new_vocabulary, const Vocabulary& old_vocabulary,
                           int64_t old_size, int threads) {
  JoinOptions options;
  options.old_size = old_size;
  options.threads = threads;
  return ToTuple([&] {
    const py::gil_scoped_release release;
    return Join(new_vocabulary, old_vocabulary, options);
  }());
}

}  // namespace

void RegisterVocab(py::module_& module) {
  py::class_<Vocabulary, std::shared_ptr<Vocabulary>>(module, "Vocabulary", py::is_final())
      .def_static(
          "of_file",
          [](const std::string& path, int threads) {
            return std::const_pointer_cast<Vocabulary>(FromFile(path, threads));
          },
          "path"_a, py::kw_only(), "threads"_a)
      .def_static(
          "of_tokens",
          [](const std::string& name, const py::bytes& text, const py::array_t<uint64_t>& offsets) {
            return std::const_pointer_cast<Vocabulary>(FromTokens(name, text, offsets));
          },
          "name"_a, "text"_a, "offsets"_a)
      .def("__len__", &Vocabulary::size);
  module.def("join", &JoinVocabularies, "new_vocabulary"_a, "old_vocabulary"_a, py::kw_only(),
             "old_size"_a, "threads"_a);
}

}  // namespace tensorbundle
