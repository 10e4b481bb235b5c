// SPDX-License-Identifier: Apache-2.0
// The names most similar to a name that was not found, by their longest common subsequence.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/pybind.h"
#include "tensorbundle/base/common_subsequence.h"

namespace tensorbundle {
namespace {

// Words updated in one search. 100,000 names of 100 bytes take 10 to 40 million, some 50 ms.
constexpr size_t kMaxWork = size_t{1} << 26;

struct Candidate {
  size_t index = 0;
  double similarity = 0;
};

// Twice the common part, divided by the sum of both sizes: 1 for equal texts, 0 without a common
// character. An upper bound of what Python's difflib calls the ratio.
double Similarity(const SubsequenceMatcher& matcher, std::string_view text) {
  const size_t size = std::min(text.size(), SubsequenceMatcher::kMaxSize);
  const size_t sum = matcher.size() + size;
  return sum == 0 ? 0 : 2.0 * static_cast<double>(matcher.Length(text)) / static_cast<double>(sum);
}

std::vector<Candidate> MostSimilar(std::string_view name,
                                   const std::vector<std::string_view>& texts, size_t count,
                                   double least) {
  const SubsequenceMatcher matcher(name);
  std::vector<Candidate> best;
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.similarity != b.similarity ? a.similarity > b.similarity : a.index < b.index;
  };
  size_t work = 0;
  for (size_t i = 0; i < texts.size() && work < kMaxWork; ++i) {
    const size_t size = std::min(texts[i].size(), SubsequenceMatcher::kMaxSize);
    const size_t shorter = std::min(size, matcher.size());
    const double bound = 2.0 * static_cast<double>(shorter);
    if (bound < least * static_cast<double>(size + matcher.size())) continue;  // too long or short
    work += size * matcher.words();
    const Candidate candidate{i, Similarity(matcher, texts[i])};
    if (candidate.similarity < least) continue;
    best.push_back(candidate);
    std::push_heap(best.begin(), best.end(), better);  // the worst comes first
    if (best.size() > count) {
      std::pop_heap(best.begin(), best.end(), better);
      best.pop_back();
    }
  }
  std::sort_heap(best.begin(), best.end(), better);
  return best;
}

// The candidates that are most similar to `name`, the best first; at most `count`, and none whose
// similarity is below `least`.
py::list SimilarNames(const py::bytes& name, const py::list& candidates, size_t count,
                      double least) {
  const auto wanted = static_cast<std::string_view>(name);
  // A tuple, because another thread cannot change it while the lock is released.
  const py::tuple held(candidates);
  std::vector<std::string_view> texts(held.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(held.ptr(), i), &size);
    if (text == nullptr) {
      PyErr_Clear();  // the name is not UTF-8
      continue;
    }
    texts[i] = {text, static_cast<size_t>(size)};
  }
  const std::vector<Candidate> best = [&] {
    const GilReleased released;
    return MostSimilar(wanted, texts, count, least);
  }();
  py::list found;
  for (const Candidate& candidate : best) found.append(held[candidate.index]);
  return found;
}

}  // namespace

void RegisterNames(py::module_& module) { module.def("similar_names", &SimilarNames); }

}  // namespace tensorbundle
